"""The front door: nominal images in, maps and scores out, of any network."""

from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

import sgfr_jax
from sgfr_jax.datasets import DatasetError
from sgfr_jax.detector import api, fitting, model, predicting, squares
from sgfr_jax.detector.api import explain, export, fit_detector, predict, threshold, update
from sgfr_jax.detector.method import Method
from sgfr_jax.detector.services import PLAIN
from sgfr_jax.errors import ArgumentError
from tests.detector import pretended
from tests.detector.conftest import photographs

SERVICES = PLAIN._replace(batch_size=6)
SMALL = Method(image_size=64, bank_size=20, solver="nearest", num_neighbors=3)
KEY = jax.random.key(0)


@pytest.fixture(autouse=True)
def few_defects(monkeypatch):
    pretended.few_defects(monkeypatch)


def fit(images, method=SMALL, key=KEY):
    return fit_detector(key, images, method=method, network=pretended.NETWORK, services=SERVICES)


@pytest.fixture(scope="module")
def detector():
    with pytest.MonkeyPatch.context() as patch:
        pretended.few_defects(patch)
        return fit(photographs()[0])


@pytest.fixture(scope="module")
def plain():
    """Of one bank."""
    return fit(photographs()[0], Method.fast(image_size=64, bank_size=20, num_neighbors=3))


@pytest.fixture(scope="module")
def images():
    return photographs()[1]


def test_it_is_what_the_stages_fit(detector, streams):
    state = streams.fitted.states["nearest"]
    jax.tree.map(np.testing.assert_array_equal, detector.state, state)
    assert detector.network is pretended.NETWORK and detector.method.backbone == "network"
    assert detector.method.geometry == "square"  # as the images were looked at
    assert detector.about.seed == 0 and len(detector.about.hashes) == 5


def test_maps_have_the_images_sizes_and_defects_stand_out(detector, images):
    other = np.repeat(images[4][:60, :, None], 3, axis=2)
    found = predict(detector, [*images, other], services=SERVICES)
    assert [one.anomaly_map.shape for one in found] == [(72, 72)] * 6 + [(60, 72)]
    assert all(one.anomaly_map.dtype == np.float32 for one in found)
    scores = [one.score for one in found]
    assert min(scores[3:6]) > max(scores[:3])
    for one in found:
        assert type(one.score) is float and 1 / 6 <= one.p_value <= 1
    assert [one.p_value for one in found[3:6]] == pytest.approx([1 / 6] * 3)
    scorer = predicting.make_scorer(detector, model.stages_of(detector, SERVICES))
    assert [one.score for one in scorer(images)] == scores[:6]


def test_any_number_of_images_by_name_or_in_memory_is_scored_alike(
    plain, images, tmp_path, monkeypatch
):
    paths = [tmp_path / f"{i}.png" for i in range(6)]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path)
    expected = predict(plain, images, services=SERVICES)
    monkeypatch.setattr(api, "_PIXELS", 2 * 72 * 72)  # two at a time
    for given in (paths, list(map(str, paths)), images):
        found = predict(plain, given, services=SERVICES)
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one.anomaly_map, other.anomaly_map)
            assert one[1:] == other[1:]
    assert predict(plain, []) == []
    fitted = fit(paths[:3], plain.method)
    again = fit(images[:3], plain.method)
    jax.tree.map(np.testing.assert_array_equal, fitted.state, again.state)
    assert fitted.about.hashes != again.about.hashes  # files hash as they are
    assert fitted.about.paths == tuple(map(str, paths[:3]))


def test_the_key_decides_what_is_drawn(plain):
    random = Method.fast(image_size=64, bank_size=20, sampler="random", num_neighbors=3)
    train = photographs()[0]
    one, same, other = (fit(train, random, jax.random.key(seed)) for seed in (3, 3, 4))
    jax.tree.map(np.testing.assert_array_equal, one, same)
    assert one.about == same.about and one.about.seed == 3
    (mine,), (its,) = (found.state.looks[0].banks for found in (one, other))
    assert not np.array_equal(mine.indices, its.indices)


def test_a_threshold_is_of_nominal_images(detector):
    found = threshold(detector, 0.2)
    assert found.num_null == 5 and found.wanted == 0.2
    assert found.score in detector.nulls.images.scores
    for rate in (1.5, 0, float("nan"), "0.1"):
        with pytest.raises(ArgumentError, match=rf"^false_alarm_rate={rate!r} must lie"):
            threshold(detector, rate)


def test_places_are_explained_by_patches_of_training_images(detector, images):
    nominal, dent = explain(detector, [images[0], images[5]], services=SERVICES)
    assert len(nominal) == len(dent) == 1  # `least` is infinite
    (place,) = dent
    assert 30 <= place.x * 72 < 46 and 20 <= place.y * 72 < 40
    assert {view.stream for view in place.views} == {"coarse@64", "fine@96", "coarse@96"}
    for view in place.views:
        assert all(0 <= atom.image < 5 for atom in view.atoms)
    more = explain(detector, [images[5]], least=-np.inf, services=SERVICES)
    assert len(more[0]) == 3 and more[0][0].x == place.x


def test_an_update_learns_from_what_is_new(detector, images):
    train = photographs()[0]
    grown = update(KEY, detector, [*images[3:], train[0]], services=SERVICES)
    names = grown.about.train
    assert names[len(detector.about.train) :] == tuple(
        f"image {number}" for number in range(len(detector.about.train), len(names))
    )
    (one,) = predict(detector, (image for image in images[:1]), services=SERVICES)
    assert one.score == predict(detector, images[:1], services=SERVICES)[0].score
    assert len(grown.about.hashes) == 8 and grown.about.hashes[:5] == detector.about.hashes
    assert grown.nulls.images.counts.sum() == 5 + 3
    assert any("grown by 3 images" in note for note in grown.about.notes)
    assert len(detector.about.hashes) == 5  # the old one is what it was
    before, after = (predict(of, images[3:], services=SERVICES) for of in (detector, grown))
    for one, other in zip(before, after, strict=True):
        assert other.score < one.score
    with pytest.raises(ArgumentError, match=r"`images`: .* all of these already"):
        update(KEY, grown, images[3:5], services=SERVICES)


def test_learned_atoms_cannot_be_added_to(images):
    learned = Method.fast(image_size=64, subspaces="pca", subspace_rank=2, solver="project")
    found = fit(photographs()[0], learned)
    assert "which the atoms are learned from" in found.about.notes[-1]
    with pytest.raises(ArgumentError, match="its atoms are learned"):
        update(KEY, found, images, services=SERVICES)


def test_an_exported_detector_is_one_program(plain, images):
    from sgfr_jax.datasets.images import read_image

    read = jax.export.deserialize(bytearray(export(plain, platforms=["cpu"])))
    found = read.call(np.stack([read_image(image, 64) for image in images]))
    expected = [one.score for one in predict(plain, images, services=SERVICES)]
    np.testing.assert_allclose(found["score"], expected, rtol=1e-4)
    assert found["anomaly_map"].shape == (6, 64, 64)


def test_images_of_several_shapes_are_looked_at_in_two_ways():
    rng = np.random.default_rng(0)
    shapes = [(64, 96), (96, 64), (64, 64), (80, 64)]
    train = [pretended.images(rng, 1, shape)[0] for shape in shapes]
    fast = Method.fast(
        image_size=64, bank_size=20, solver="nearest", geometry="square+tile", tile=64
    )  # fmt: skip
    found = fit(train, fast)
    assert found.method.geometry == "square+tile" and len(found.state.looks) == 2
    maps = [one.anomaly_map for one in predict(found, train, services=SERVICES)]
    assert [one.shape for one in maps] == shapes
    with pytest.raises(ArgumentError, match=r"geometry=square\+tile cannot be exported"):
        export(found)
    alike = fit(train[2:3] * 2, fast)  # tiles of squares come to the same
    assert alike.method.geometry == "square" and len(alike.state.looks) == 1


@pytest.mark.slow
def test_all_defaults_find_defects(images, monkeypatch):
    monkeypatch.undo()
    found = sgfr_jax.fit_detector(KEY, photographs()[0], network=pretended.NETWORK)
    assert found.method.layers == ("auto",) and found.method.image_size == 256
    scores = [one.score for one in sgfr_jax.predict(found, images)]
    assert min(scores[3:]) > max(scores[:3])


@pytest.mark.parametrize(
    "image,said",
    [
        (np.zeros((64, 64, 3), np.float32), r"float32 \[64, 64, 3\]"),
        (np.zeros((64, 64), np.uint16), r"uint16 \[64, 64\]"),
        (np.zeros((64, 64, 4), np.uint8), r"uint8 \[64, 64, 4\]"),
        (np.zeros(64, np.uint8), r"uint8 \[64\]"),
        (np.zeros((0, 64), np.uint8), r"uint8 \[0, 64\]"),
    ],
    ids=str,
)
def test_what_is_no_image_is_named(plain, image, said):
    given = [photographs()[0][0], image]
    message = rf"^images\[1\] is {said}: images must be uint8 \[H, W\] or \[H, W, 3\], or paths"
    for call in (fit, lambda x: predict(plain, x), lambda x: explain(plain, x),
                 lambda x: update(KEY, plain, x)):  # fmt: skip
        with pytest.raises(ArgumentError, match=message):
            call(given)


@pytest.mark.parametrize(
    "image,said",
    [
        ("a.png", "'a.png'"),
        (Path("a.png"), r"PosixPath\('a.png'\)"),
        (np.zeros((64, 48, 3), np.uint8), r"uint8 \[64, 48, 3\]"),
        (np.zeros((64, 48), np.uint8), r"uint8 \[64, 48\]"),
        (None, "None"),
    ],
    ids=str,
)
def test_one_image_is_no_list(plain, image, said):
    for call in (fit, lambda x: predict(plain, x), lambda x: explain(plain, x),
                 lambda x: update(KEY, plain, x)):  # fmt: skip
        with pytest.raises(ArgumentError, match=f"^images={said} must be a list of images"):
            call(image)


def test_images_in_memory_are_named_by_their_numbers(plain, images):
    given = [images[0], images[0][:10]]
    for call in (fit, lambda x: predict(plain, x), lambda x: explain(plain, x),
                 lambda x: update(KEY, plain, x)):  # fmt: skip
        with pytest.raises(DatasetError, match=r"^image 1 has 72 x 10 pixels; at least 16"):
            call(given)


@pytest.mark.parametrize(
    "key", [0, None, np.zeros(2, np.int32), np.zeros((2, 2), np.uint32)], ids=repr
)
def test_a_key_is_one_key_of_either_type(plain, key):
    for call in (lambda: fit(None, key=key), lambda: update(key, plain, None)):
        with pytest.raises(ArgumentError, match=r"^key=.* must be one random key, such as"):
            call()
    fitting.check_key(jax.random.PRNGKey(0))
    fitting.check_key(jax.random.key(0))


def test_what_is_no_method_and_no_detector(images):
    for method in ("fast", {"solver": "ridge"}, False):
        with pytest.raises(ArgumentError, match=r"^method=.* must be a `Method`, such as"):
            fit(images, method)
    for call in (lambda x: predict(x, images), threshold, lambda x: explain(x, images),
                 lambda x: update(KEY, x, images), export, squares.sizes,
                 lambda x: squares.score_squares(x, None, images)):  # fmt: skip
        with pytest.raises(ArgumentError, match=r"^detector='a path' must be what `fit_detector`"):
            call("a path")


def test_a_detector_equals_itself_alone(plain):
    same = jax.tree.map(lambda x: x, plain)
    assert plain == plain != same and len({plain, same}) == 2


def test_what_cannot_be_fitted_is_said_before_the_work(tmp_path):
    train = photographs()[0]
    with pytest.raises(ArgumentError, match=r"^images=\[\] must hold one nominal image"):
        fit([])
    with pytest.raises(ArgumentError, match=r"^`solver`: unknown solver 'none'"):
        fit(train, Method(solver="none"))
    with pytest.raises(ArgumentError, match=r"`backbone`: .*efficientnet_lite9"):
        fit_detector(KEY, train, network="efficientnet_lite9")
    with pytest.raises(ArgumentError, match=r"^num_neighbors=90, but .* lower `num_neighbors`"):
        fit(train, Method.fast(image_size=64, num_neighbors=90, bank_size=20))
    (tmp_path / "bad.png").write_bytes(b"no image")
    with pytest.raises(DatasetError, match=r"bad\.png"):
        fit([tmp_path / "bad.png"])


def test_one_of_ours_is_found_by_its_name():
    asked = Method(image_size=64, backbone="resnet18")
    method, network = api._settled(asked, "efficientnet_lite0")
    assert method.backbone == network.name == "efficientnet_lite0"
    assert api._settled(Method(image_size=64), None)[1].name == "efficientnet_lite0"
