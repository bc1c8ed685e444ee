"""The whole command on photographs that are not square, by every geometry."""

import dataclasses

import jax
import numpy as np
import pytest
from PIL import Image

from sgfr_jax.commands import run
from sgfr_jax.commands.flags import config, usage
from sgfr_jax.commands.flags.checking import ConfigError
from sgfr_jax.commands.host import memory
from sgfr_jax.commands.host.machine import Resources
from sgfr_jax.datasets import Example, geometry
from sgfr_jax.detector import geometries, model, network, predicting, saved
from sgfr_jax.detector.services import PLAIN
from tests.detector import pretended
from tests.small import SMALL, texture

ONE_BANK, STREAMS = ("fine", "coarse"), ("fine@1", "coarse@1")
SHAPES = [(72, 120), (60, 72), (72, 72), (110, 72), (48, 72)]


@pytest.fixture(scope="module", autouse=True)
def quick():
    """A network that is none, and few synthetic defects."""
    with pytest.MonkeyPatch.context() as patch:
        pretended.stand_in(patch)
        pretended.few_defects(patch)
        yield


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """One product, photographed in many shapes at one scale."""
    root, rng = tmp_path_factory.mktemp("shapes") / "bolt", np.random.default_rng(0)
    for split, kind, num in (("train", "good", 5), ("test", "good", 4), ("test", "dent", 4)):
        (root / split / kind).mkdir(parents=True)
        (root / "ground_truth" / "dent").mkdir(parents=True, exist_ok=True)
        for i in range(num):
            height, width = SHAPES[i]
            image = texture(rng, 120)[:height, :width]
            if kind == "dent":
                mask = np.zeros_like(image)
                mask[20:36, width - 30 : width - 14] = 255
                image[mask > 0] = 255 - image[mask > 0]
                Image.fromarray(mask).save(root / "ground_truth" / "dent" / f"{i}_mask.png")
            Image.fromarray(image).save(root / split / kind / f"{i}.png")
    return root.parent


def settled(photographs, **fields):
    fields = {"layers": ONE_BANK} | fields
    return config.resolve(usage.cleared(SMALL.replace(data_dir=str(photographs), **fields)))


def go(settings, workdir, **resources):
    return run.run(settings, Resources(workdir, batch_size=4, num_figures=1, **resources))[0]


def score(detector, images):
    stages = model.stages_of(detector, PLAIN._replace(batch_size=4))
    return list(predicting.make_scorer(detector, stages)(images))


@pytest.mark.parametrize(
    "fields",
    [
        {"geometry": "pad"},
        pytest.param({"geometry": "crop", "crop": 0.9}, marks=pytest.mark.slow),
        {"geometry": "tile"},
        {"geometry": "tile", "tile": 60, "eval_size": "native"},
        {"geometry": "pad", "subspaces": "dictionary", "solver": "ridge"},
        {"geometry": "square+tile", "tile": 60},
        {
            "geometry": "pad+tile",
            "eval_size": "native",
            "subspaces": "pca",
            "solver": "project",
            "subspace_rank": 4,
        },
    ],
)
def test_defects_are_found_and_a_saved_model_finds_the_same(photographs, tmp_path, fields):
    record = go(settled(photographs, **fields), tmp_path, save_model=True, save_maps=True)
    own = record.results
    assert (own["num_train"], own["num_test"]) == (5, 8)
    if fields["geometry"] != "crop":  # which may cut defects off
        assert own["pixel_auroc"] > 0.85 and own["image_auroc"] > 0.65
    detector = saved.load(tmp_path / "models" / "bolt")
    assert detector.method.geometry == fields["geometry"]
    assert (detector.method.tile is None) == ("tile" not in fields["geometry"])
    paths = [photographs / image["file"] for image in record.images]
    pixels = [np.asarray(Image.open(path)) for path in paths]
    found = score(detector, pixels)
    assert [one.score for one in found] == [image["score"] for image in record.images]
    for image, one in zip(pixels, found, strict=True):
        assert one.anomaly_map.shape == image.shape and np.isfinite(one.anomaly_map).all()
    for seen, look in zip(detector.method.geometries, detector.state.looks, strict=True):
        (origin,) = look.origins
        for image, window, cell in zip(*origin, strict=True):
            if image < 0:  # learned
                continue
            shape = np.asarray(Image.open(photographs / detector.about.train[image])).shape
            extent = geometry.windows(shape, seen)[window].extent
            grid = detector.method.grid
            for place, share in zip(divmod(int(cell), grid), extent, strict=True):
                assert place < geometry.filled(share, grid)  # no atom is padding


@pytest.mark.parametrize(
    "shapes,kinds",
    [
        ([(480, 640)] * 20, "square"),  # of one camera
        ([(480, 640)], "square"),
        ([(480, 640), (500, 700), (470, 660)], "square"),  # cut out by hand
        ([(480, 640)] * 19 + [(480, 2000)], "square"),  # one is another
        ([(480, 640), (640, 480)] * 5, "square+tile"),  # lying and standing
        ([(400, 600)] * 3, "square"),  # of a camera, too
        ([(400, 640)] * 3, "square+tile"),  # long
        ([(640, 400)] * 3, "square+tile"),
        ([(640, 400)] * 2 + [(600, 440)] * 3, "square"),  # half of them are not
        ([(200, 300), (200, 400), (200, 500)], "square+tile"),
        ([(100, 100), (200, 200), (300, 300)], "square+tile"),  # at different scales when squeezed
    ],
)
def test_images_say_how_they_are_looked_at(shapes, kinds):
    several = pretended.settled()
    images = [Example("", np.zeros(shape, np.uint8), 0, "good", None) for shape in shapes]
    found = geometries.of_training_images(several, images)
    assert "+".join(geometry.kind for geometry in found) == kinds
    side = int(np.median([min(shape) for shape in shapes]))
    assert [g.tile for g in found] == [None, side][: len(found)]
    one = pretended.settled(layers=("fast",))
    assert geometries.settled(one) and not geometries.settled(several)
    assert geometries.of_training_images(one, ()) == [geometry.Geometry("square")]
    given = dataclasses.replace(several, geometry="tile", tile=50)
    assert geometries.settled(given)
    assert geometries.of_training_images(given, ()) == [geometry.Geometry("tile", tile=50)]


def test_a_method_names_how_images_were_looked_at():
    method = pretended.settled(overlap=0.1)
    tiles = [geometry.Geometry("square"), geometry.Geometry("tile", tile=40, overlap=0.1)]
    seen = geometries.as_seen(method, tiles)
    assert (seen.geometry, seen.tile, seen.overlap) == ("square+tile", 40, 0.1)
    seen = geometries.as_seen(method, tiles[:1])  # of no tiles nothing is said
    assert seen == dataclasses.replace(method, geometry="square", tile=None, overlap=0.25)


@pytest.mark.slow
def test_by_default_photographs_that_differ_have_two_looks(photographs, folder, tmp_path):
    fields = {"layers": STREAMS, "solver": "nearest"}
    named = settled(photographs, **fields)
    assert named.method.geometry == "auto"
    found = go(named, tmp_path / "open", save_model=True)
    assert saved.load(tmp_path / "open" / "models" / "bolt").method.geometry == "square+tile"
    assert any("looked at as --geometry=square+tile" in note for note in found.notes)
    given = go(named.replace(geometry="square+tile"), tmp_path / "given")
    assert [image["score"] for image in found.images] == [i["score"] for i in given.images]
    alike = settled(folder, categories=("cap",), **fields)
    go(alike, tmp_path / "alike", save_model=True)
    assert saved.load(tmp_path / "alike" / "models" / "cap").method.geometry == "square"


@pytest.mark.slow
def test_several_levels_through_tiles(photographs, tmp_path):
    settings = settled(photographs, geometry="tile", layers=STREAMS, bank_size=20, solver="nearest")
    first = go(settings, tmp_path / "first", save_model=True)
    assert first.results["pixel_auroc"] > 0.85
    assert go(settings, tmp_path / "second").images == first.images
    paths = [photographs / image["file"] for image in first.images]
    detector = saved.load(tmp_path / "first" / "models" / "bolt")
    found = score(detector, [np.asarray(Image.open(path)) for path in paths])
    assert [one.score for one in found] == [image["score"] for image in first.images]


@pytest.mark.parametrize("layers", [ONE_BANK, pytest.param(STREAMS, marks=pytest.mark.slow)])
def test_of_several_looks_each_is_what_it_is_alone(photographs, tmp_path, layers):
    fitted, records = {}, {}
    for kind in ("square", "tile", "square+tile"):
        settings = settled(photographs, geometry=kind, layers=layers, solver="nearest")
        records[kind] = go(settings, tmp_path / kind, save_model=True, diagnose=True)
        fitted[kind] = saved.load(tmp_path / kind / "models" / "bolt")
    both = fitted["square+tile"].state
    for kind, look in zip(("square", "tile"), both.looks, strict=True):
        (alone,) = fitted[kind].state.looks
        jax.tree.map(np.testing.assert_array_equal, look, alone)
        alone = records[kind].results["diagnostics"]
        together = records["square+tile"].results["diagnostics"]
        assert {f"{kind}: {name}" for name in alone} == {n for n in together if kind in n}
    scores = np.array([[i["score"] for i in records[k].images] for k in ("square", "tile")])
    mean, spread = (np.asarray(x)[:, None] for x in both.nominal[2:])
    found = [image["score"] for image in records["square+tile"].images]
    whole, of_tiles = (scores - mean) / spread
    expected = whole + np.maximum(of_tiles - 3, 0)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert records["square+tile"].results["num_atoms"] == sum(
        records[kind].results["num_atoms"] for kind in ("square", "tile")
    )


@pytest.mark.parametrize("layers", [ONE_BANK, STREAMS])
def test_tiles_of_square_images_are_the_images(folder, tmp_path, layers):
    of_one = {"layers": layers, "categories": ("cap",), "solver": "nearest"}
    square, tile, pad = (
        go(settled(folder, geometry=kind, **of_one), tmp_path / kind)
        for kind in ("square", "tile", "pad")
    )
    both = go(settled(folder, geometry="square+tile", **of_one), tmp_path / "both")
    assert square.images == tile.images == pad.images == both.images
    for name in ("pixel_ap", "aupro", "image_auroc"):
        assert square.results[name] == tile.results[name]


def test_embeddings_of_windows_are_cached(photographs, tmp_path, monkeypatch):
    keeping = {"cache_dir": tmp_path / "cache", "cache_bytes": 10**9}
    settings = settled(photographs, geometry="tile")
    first = go(settings, tmp_path / "first", **keeping)
    fails = dataclasses.replace(
        pretended.NETWORK, load=lambda levels: pytest.fail("a network was loaded")
    )
    monkeypatch.setattr(network, "ours", lambda name, weights=None: fails)
    again = go(settings.replace(solver="nearest"), tmp_path / "again", **keeping)
    assert len(again.images) == len(first.images)


def test_what_tiles_allow_is_known_when_images_are_read(photographs, tmp_path, monkeypatch):
    """An image of several tiles has more patches than one square, and padding has none."""
    one = {"shots": 1, "seed": 1, "layers": ("fine",), "bank_size": 300, "grid": None}
    with pytest.raises(ConfigError, match="bolt has 64 nominal patches"):
        go(settled(photographs, **one), tmp_path / "square")
    tiles = go(settled(photographs, **one, geometry="tile", tile=30), tmp_path / "tile")
    assert tiles.results["num_atoms"] == 300
    with pytest.raises(ConfigError, match=r"bolt has \d\d nominal patches"):
        go(settled(photographs, **one | {"bank_size": 63}, geometry="pad"), tmp_path / "pad")
    # What does not fit is refused with the devices that there are in mind.
    monkeypatch.setattr(memory, "available", lambda: 1000)
    with pytest.raises(ConfigError, match="to sample from all patches"):
        go(settled(photographs, geometry="tile"), tmp_path / "large")


@pytest.mark.parametrize(
    "fields,message",
    [
        ({"geometry": "round"}, "--geometry"),
        ({"geometry": "square+round"}, "unknown geometry 'round'"),
        ({"geometry": "square+"}, "unknown geometry ''"),
        ({"geometry": "tile+tile"}, r"--geometry=tile\+tile must be different ones"),
        ({"geometry": "crop+tile"}, r"--geometry=crop\+tile must be without crop, or crop alone"),
        ({"geometry": "square+pad", "tile": 30}, r"--tile=30 must be left out with --geometry=squ"),
        ({"geometry": "crop", "crop": 1.5}, r"--crop=1.5 must be in \(0, 1\]"),
        ({"geometry": "tile", "tile": 0}, "--tile=0 must be a positive number"),
        ({"tile": 100}, "--tile=100 must be left out with --geometry=auto"),
        ({"crop": 0.5}, "--crop=0.5 must be left out with --geometry=auto"),
        ({"layers": ("fast",), "tile": 9}, "--tile=9 must be left out with --geometry=square"),
        ({"geometry": "auto+tile"}, r"--geometry=auto\+tile must be auto alone"),
        ({"geometry": "pad", "overlap": 0.3}, "--overlap=0.3 must be left out with --geometry=pad"),
        ({"geometry": "tile", "overlap": 0.9}, r"--overlap=0.9 must be in \[0, 0.5\]"),
    ],
)
def test_bad_flags(fields, message):
    with pytest.raises(ConfigError, match=message):
        config.resolve(config.Config.of(**fields))
