import pytest

from sgfr_jax import datasets
from sgfr_jax.datasets import DatasetError
from tests.datasets import trees


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "cups"
    for name in (
        "fine/1.png",
        "fine/2.JPG",
        "fine/notes.txt",
        "probe/OK/3.png",
        "probe/chip/4.png",
    ):
        if name.endswith("txt"):
            (root / name).write_text("")
        else:
            trees.save(root / name, trees.image(1))
    trees.save(root / "marks/chip/4_mask.png", trees.mask())
    return root


def _load(root, *globs, **arguments):
    names = ("train_glob", "test_glob", "mask_glob")
    return datasets.load("folder", root, **dict(zip(names, globs, strict=False)), **arguments)


def test_globs(root):
    (cups,) = _load(root, "fine/*", "probe/*/*", "marks/*/*.png")
    assert cups.name == "cups"
    assert [e.name for e in cups.train] == ["fine/1.png", "fine/2.JPG"]
    assert [(e.name, e.label, e.kind, e.mask and e.mask.name) for e in cups.test] == [
        ("probe/OK/3.png", 0, "good", None),
        ("probe/chip/4.png", 1, "chip", "4_mask.png"),
    ]


def test_training_images_alone(root):
    (cups,) = _load(root, "**/*.png", categories=["cups"])
    assert len(cups.train) == 4 and cups.test == ()


def test_relative_to_where_we_are(root, monkeypatch):
    monkeypatch.chdir(root)
    (cups,) = _load(None, "fine/*.png")
    assert cups.name == "cups" and [e.name for e in cups.train] == ["fine/1.png"]


@pytest.mark.parametrize(
    "globs, message",
    [
        (("fine/*.tif",), r"train_glob=fine/\*\.tif matches no image in '.*cups'"),
        (("fine/*", "fine/1*"), r"fine/1\.png' matches `train_glob` and `test_glob`"),
        (("../x/*.png",), "train_glob=.* leaves the data directory"),
        (("/x/*.png",), "train_glob=.* leaves the data directory"),
        (("a**b/*",), "train_glob=.* (is not a pattern|matches no image)"),
        ((" ",), "`train_glob` is empty"),
        (("fine/*", None, "marks/*"), "`mask_glob` needs `test_glob`"),
        (("fine/*", "probe/*/*", "**/*_mask.png"), r"4_mask\.png' has no image"),
    ],
)
def test_mistakes(root, globs, message):
    with pytest.raises(DatasetError, match=message):
        _load(root, *globs)


def test_links_out_and_duplicate_stems_are_reported_together(root, tmp_path):
    trees.save(tmp_path / "x.png", trees.image(0))
    (root / "fine/link.png").symlink_to(tmp_path / "x.png")
    trees.save(root / "fine/1.bmp", trees.image(0))
    with pytest.raises(DatasetError, match="there are 2 problems") as caught:
        _load(root, "fine/*")
    assert caught.match("link.png', which `train_glob` matches, is a link")
    assert caught.match("differ in their suffix alone")


def test_the_category_is_the_directory(root):
    with pytest.raises(DatasetError, match="Known: cups"):
        _load(root, "fine/*", categories=["mugs"])


def test_masks_beside_their_images_are_no_images(root):
    trees.save(root / "probe/chip/4_mask.png", trees.mask())
    (cups,) = _load(root, "fine/*", "probe/*/*", "probe/*/*_mask.png")
    assert [(e.name, e.mask and e.mask.name) for e in cups.test] == [
        ("probe/OK/3.png", None),
        ("probe/chip/4.png", "4_mask.png"),
    ]
    with pytest.raises(DatasetError, match=r"mask_glob=probe/.* matches too"):
        _load(root, "fine/*", "probe/*/*", "probe/*/*")


def test_directories_below_that_of_a_kind(root):
    for name in ("good/a/1.png", "crack/a/b/2.png", "good/images/3.png", "crack/images/4.png"):
        trees.save(root / "deep" / name, trees.image(2))
    (cups,) = _load(root, "fine/*", "deep/**/*.png")
    assert {e.name: (e.label, e.kind) for e in cups.test} == {
        "deep/good/a/1.png": (0, "good"),
        "deep/crack/a/b/2.png": (1, "b"),
        "deep/good/images/3.png": (0, "good"),
        "deep/crack/images/4.png": (1, "images"),
    }
    (cups,) = _load(root, "fine/*", "deep/*/images/*.png")
    assert [(e.label, e.kind) for e in cups.test] == [(1, "crack"), (0, "good")]
