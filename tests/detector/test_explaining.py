"""What is said of an image, with a detector made by hand: no network, every number known."""

import dataclasses
import json
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from sgfr_jax import thresholds, types
from sgfr_jax.commands.files import training_images
from sgfr_jax.commands.pages import explaining as descriptions
from sgfr_jax.commands.pages import explanation_pages, figures
from sgfr_jax.datasets import geometry
from sgfr_jax.datasets.contents import content_hash
from sgfr_jax.detector import explaining, model, network, places, settle, state, streams
from sgfr_jax.detector.method import Method
from sgfr_jax.detector.programs import Programs
from sgfr_jax.detector.services import PLAIN
from sgfr_jax.detector.stages import Stages
from tests.detector import pretended
from tests.small import texture

GRID, WIDTHS = 4, (24, 40)
NETWORK = network.make(
    pretended.embed, strides={"block2": 8, "block4": 8},
    widths=dict(zip(("block2", "block4"), WIDTHS, strict=True)),
)  # fmt: skip


@pytest.fixture
def train(tmp_path, rng):
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for path in paths:
        Image.fromarray(texture(rng)).save(path)
    return paths


@pytest.fixture
def detector(train):
    """A bank of five patches, each with a feature of its own."""
    atoms = np.zeros((5, sum(WIDTHS)), np.float32)
    atoms[np.arange(5), np.arange(5)] = 1
    bank = types.Bank(atoms, np.ones(5, np.float32), np.arange(5, dtype=np.int32))
    origins = state.Origins(
        np.array([0, 0, 1, 2, 2]), np.zeros(5, int), np.array([0, 5, 15, 3, 12])
    )
    tally = thresholds.tally(np.arange(4.0))
    about = model.About(
        "cap", ("a/0", "a/1", "a/2"), tuple(map(str, train)), tuple(map(content_hash, train)), "",
        ("note",), (), 0,
    )  # fmt: skip
    asked = Method.fast(solver="nearest", image_size=64, grid=GRID)
    method = settle.settle(asked, NETWORK)
    fitted = state.alone(state.plain_look((bank,), (origins,)))
    return model.Detector(fitted, state.Nulls(tally, tally), method, NETWORK, about)


class Known(NamedTuple):
    """Embeds every image as the same patches."""

    patches: np.ndarray

    def batches(self, split):
        yield [np.repeat(self.patches, len(split.examples), axis=0)]


@pytest.fixture
def stages(detector):
    """Finds in every image the third atom, and a defect in the second level of cell 6."""
    patches = np.zeros((1, GRID**2, sum(WIDTHS)), np.float32)
    patches[:, :, 2] = 1
    patches[:, 6, WIDTHS[0] :] = 0.1
    whole = np.zeros((1, 2, 64, 64), np.float32)
    whole[:, :, 20:28, 40:44] = 3
    whole[:, :, 50, 5] = 2
    programs = Programs(
        score=lambda look, batch, extents: (whole[0], np.array([7.0, 8.0])),
        contributions=lambda look, batch, extents: jnp.asarray(whole),
        join=lambda *args, **kwargs: pytest.fail("an image that is one square has no windows"),
        **dict.fromkeys(set(Programs._fields) - {"score", "contributions", "join"}),
    )
    planned = streams.plan(detector.method, NETWORK)
    services = PLAIN._replace(batch_size=2)
    of_solver = {"nearest": programs}
    return Stages(detector.method, NETWORK, planned, (Known(patches),), of_solver, services)


def explained(detector, stages, least=1.0):
    explain = explaining.make_explainer(detector, stages, least=least)
    found = list(explain([np.zeros((72, 90), np.uint8)] * 2))
    assert [one.score for one in found] == [7.0, 8.0]
    assert all(one.anomaly_map.max() == 3 for one in found)
    return [one.places for one in found]


def through(place, window):
    """The place, seen through another window."""
    return place._replace(views=tuple(v._replace(window=window) for v in place.views))


def test_what_is_known_of_a_place(detector, stages):
    first, again = explained(detector, stages)
    assert first == again and len(first) == 2
    place, other = first
    assert (place.x, place.y, place.value) == (40.5 / 64, 20.5 / 64, 3.0)
    assert (other.x, other.y, other.value) == (5.5 / 64, 50.5 / 64, 2.0)
    (view,) = place.views
    assert (view.stream, view.grid, view.cell, view.part) == ("block2+block4@64", 4, 6, 3.0)
    assert view.atoms == (explaining.Atom(2, 1.0, 1, 0, 15),)
    assert view.score == pytest.approx(0.1 * np.sqrt(40), rel=1e-5)
    assert view.levels == {"block2": 0.0, "block4": 1.0}
    assert other.views[0].cell == 12 and other.views[0].score == 0
    assert other.views[0].levels == {"block2": 0.0, "block4": 0.0}


def test_only_the_highest_place_where_nothing_is_anomalous(detector, stages):
    ((place,), _) = explained(detector, stages, least=5.0)
    assert place.value == 3.0


def test_as_json(detector, stages):
    place = explained(detector, stages)[0][0]
    found = descriptions.describe(place, (72, 90, 3), detector.about.train, lambda number: None)
    assert json.loads(json.dumps(found)) == found | {
        "streams": [found["streams"][0] | {"box": [45, 18, 23, 18]}]
    }
    assert (found["x"], found["y"]) == (round(40.5 * 90 / 64, 1), round(20.5 * 72 / 64, 1))
    assert found["streams"][0]["atoms"] == [
        {"atom": 2, "weight": 1.0, "image": "a/1", "row": 3, "column": 3, "grid": 4}
    ]


def test_windows_as_json(detector, stages):
    """The atom's pixels as they lie in the training image, where that can be read."""
    place = explained(detector, stages)[0][0]
    tiles = geometry.Geometry("tile", tile=40)
    (view,) = place.views
    atoms = (view.atoms[0]._replace(window=1, cell=6),)
    view = view._replace(geometry=tiles, window=geometry.Window((32, 50, 72, 90)), atoms=atoms)
    place = place._replace(views=(view,))
    found = descriptions.describe(
        place, (72, 90), detector.about.train, lambda number: np.zeros((72, 72), np.uint8)
    )
    (stream,) = found["streams"]
    assert stream["box"] == (70, 42, 10, 10)
    named = {"atom": 2, "weight": 1.0, "image": "a/1", "row": 1, "column": 2, "grid": 4}
    assert stream["atoms"] == [named | {"window": 1, "box": (36, 10, 10, 10)}]
    gone = descriptions.describe(place, (72, 90), detector.about.train, lambda number: None)
    assert gone["streams"][0]["atoms"] == [named | {"window": 1}]


def test_learned_atoms_are_called_so(detector, stages):
    (look,) = detector.state.looks
    learned = state.alone(look._replace(origins=(state.no_origins(5),)))
    place = explained(dataclasses.replace(detector, state=learned), stages)[0][0]
    assert place.views[0].atoms == (explaining.Atom(2, 1.0, -1, -1, -1),)
    found = descriptions.describe(place, (72, 90), detector.about.train, lambda number: None)
    assert found["streams"][0]["atoms"] == [{"atom": 2, "weight": 1.0, "learned": True}]


def test_peaks_lie_apart(rng):
    values = rng.normal(size=(40, 30))
    found = explaining.peaks(values, 6, apart=9, least=-np.inf)
    assert values[found[0]] == values.max()
    heights = [values[place] for place in found]
    assert heights == sorted(heights, reverse=True) and len(found) == 6
    for i, place in enumerate(found):
        gaps = [np.hypot(*np.subtract(place, other)) for other in found[:i]]
        assert all(gap >= 9 for gap in gaps)
    assert len(explaining.peaks(values, 6, apart=1000, least=-np.inf)) == 1


class TestTrainingImages:
    """Read again, or not to be had."""

    def test_they_are_those_of_the_fit(self, detector, train):
        read = training_images.make_reader(detector)
        for number, path in enumerate(train):
            np.testing.assert_array_equal(read(number), np.asarray(Image.open(path)))

    def test_gone_changed_or_damaged(self, detector, train, rng):
        train[0].unlink()
        Image.fromarray(texture(rng)).save(train[1])
        read = training_images.make_reader(detector)
        assert read(0) is None and read(1) is None and read(2) is not None

    def test_of_a_data_set_without_files(self, detector):
        from sgfr_jax import datasets

        (brick,) = datasets.load("demo", categories=["brick"])
        wanted = brick.train[7]
        about = detector.about._replace(
            category="brick", train=(wanted.name, "train/good/none"), paths=(None, None),
            hashes=(content_hash(wanted.image), "0" * 64),
            source=json.dumps({"dataset": "demo", "data_dir": None}),
        )  # fmt: skip
        read = training_images.make_reader(dataclasses.replace(detector, about=about))
        np.testing.assert_array_equal(read(0), wanted.image)
        assert read(1) is None


class TestPages:
    """What a reader sees."""

    @pytest.fixture
    def page(self, detector, stages):
        image = np.full((72, 90, 3), 128, np.uint8)
        image[18:36, 45:68] = (0, 200, 0)  # the patch at the place
        anomaly_map = np.zeros((72, 90), np.float32)
        anomaly_map[20:30, 40:60] = 3
        return explanation_pages.Page("a title", image, anomaly_map, explained(detector, stages)[0])

    def draw(self, page, read):
        scale = figures.Scale(0.0, 3.0, 1.0)
        return np.asarray(explanation_pages.draw(page, scale, ("a/0", "a/1", "a/2"), read))

    def test_the_patch_and_those_that_mimic_it_are_shown(self, page):
        blue = np.zeros((50, 40, 3), np.uint8)
        blue[..., 2] = 255
        asked = []

        def read(number):
            asked.append(number)
            return blue

        shown = self.draw(page, read).astype(int)
        assert asked == [1, 1]
        green = (shown == (0, 200, 0)).all(axis=-1)
        assert green[:360].any() and green[360:].any()  # in the image and as a crop
        assert (shown == (0, 0, 255)).all(axis=-1).sum() > 500
        assert (shown == figures.OUTLINE).all(axis=-1).sum() > 100

    def test_atoms_are_cut_out_of_the_windows_they_were_seen_in(self, page):
        """Of four tiles in a row the last is blue; nothing else of the training image is."""
        tiles = geometry.Geometry("tile", tile=40)
        striped = np.zeros((40, 110, 3), np.uint8)
        striped[:, 70:] = (0, 0, 255)
        assert geometry.windows((40, 110), tiles)[3].box == (0, 70, 40, 110)
        (view,) = page.places[0].views
        blue = {}
        for window in (0, 3):
            atoms = (view.atoms[0]._replace(window=window, cell=5),)
            seen = view._replace(geometry=tiles, atoms=atoms)
            one = page._replace(places=[page.places[0]._replace(views=(seen,))])
            shown = self.draw(one, lambda number: striped)
            blue[window] = (shown == (0, 0, 255)).all(axis=-1).sum()
        assert blue[0] == 0 and blue[3] > 5000

    def test_the_patch_is_cut_out_of_its_window(self, page):
        place = page.places[0]
        # Cell 6 of this window is rows 46 to 48 and columns 74 to 76: nothing there is green.
        other = through(place, geometry.Window((44, 70, 52, 78)))
        shown = self.draw(page._replace(places=[other]), lambda number: None)
        green = (shown == (0, 200, 0)).all(axis=-1)
        assert green[:360].any() and not green[360:].any()

    def test_small_patches_of_large_images_can_be_seen(self, page):
        image = np.zeros((850, 1700), np.uint8)  # a fifth of it is drawn
        place = through(page.places[0], geometry.Window((400, 1000, 440, 1040)))
        page = page._replace(image=image, anomaly_map=np.zeros(image.shape), places=[place])
        shown = self.draw(page, lambda number: None)
        rows, columns = np.nonzero((shown[:360, :340] == (255, 0, 255)).all(axis=-1))
        # Below margin and title, what is at row 415 and column 1025 of the image.
        assert abs(rows.mean() - 38 - 83) < 3 and abs(columns[columns < 218].mean() - 8 - 205) < 3
        assert np.ptp(rows) >= 6

    def test_without_the_training_images(self, page):
        shown = self.draw(page, lambda number: None)
        assert not (shown == (0, 0, 255)).all(axis=-1).any()

    @pytest.mark.parametrize("shape", [(72, 90), (500, 20), (20, 500), (5000, 33), (33, 5000)])
    def test_images_of_any_shape(self, page, shape):
        page = page._replace(
            image=np.zeros(shape, np.uint8),
            anomaly_map=np.zeros(shape),
            places=[through(place, places.whole(shape)) for place in page.places],
        )
        shown = self.draw(page, lambda number: np.zeros(shape[::-1], np.uint8))
        assert shown.ndim == 3
