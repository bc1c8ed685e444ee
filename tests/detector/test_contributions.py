"""What banks add to anomaly maps, of small detectors that look at images in every way."""

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest

from sgfr_jax import thresholds
from sgfr_jax.datasets.geometry import Window, assemble, to_size
from sgfr_jax.detector import (
    assembly,
    contributions,
    explaining,
    looks,
    places,
    predicting,
    splits,
)
from sgfr_jax.detector.model import About, Detector
from sgfr_jax.detector.state import Nominal, Nulls, State
from tests.small import texture

# Of eight tiles, more than a batch; of a tile's size; smaller than one, and than the square.
SHAPES = [(60, 110), (40, 40), (30, 50)]
TILE = 40
GEOMETRIES = ["square", "pad", "crop", "tile", "square+tile"]


@pytest.fixture(params=["one_bank", "streams"])
def fitted(request):
    """Stages and what they were fitted to, once for all geometries."""
    return request.getfixturevalue(request.param)


def model_of(fitted, geometry):
    """A detector of the same banks, whatever it looks at; its images have halos."""
    stages, state = fitted.stages, fitted.fitted.states["nearest"]
    look = state.looks[0]._replace(halo_above=jnp.float32(-1))
    state = state._replace(looks=(look,))
    if "+" in geometry:
        other = look
        if stages.method.has_streams:
            other = look._replace(map_weights=look.map_weights[::-1])
        nominal = Nominal(*(jnp.array(x, jnp.float32) for x in np.arange(1, 9).reshape(4, 2)))
        state = State((look, other), nominal, jnp.array([True, False]))
    tally = thresholds.tally(np.arange(4.0))
    names = tuple(f"train/{i}" for i in range(5))
    about = About("cap", names, (), (), "", (), (), 0)
    tile = TILE if "tile" in geometry else None
    method = dataclasses.replace(stages.method, geometry=geometry, tile=tile)
    return Detector(state, Nulls(tally, tally), method, stages.network, about)


@pytest.fixture
def images(rng):
    found = [texture(rng, 120)[: shape[0], : shape[1]].copy() for shape in SHAPES]
    for image in found:
        image[12:20, 25:35] = 255
    return found


def maps_of_banks(stages, split, look, shape, joined, size):
    """Of the one image of a look what its banks add to the map, put together from all windows."""
    seen, found = splits.views(split), []
    for batch in assembly.batches(stages, seen):
        of_batch = stages.programs["nearest"].contributions(look, batch.patches, batch.extents)
        found.append(np.asarray(of_batch)[:, : batch.num])
    every = np.concatenate(found, axis=1)
    if split.windows is not None:
        overlap = split.geometry.overlap
        every = [assemble(own, split.windows[0], shape, overlap=overlap) for own in every]
    else:
        every = every[:, 0]
    return np.stack([to_size(to_size(own, joined), size) for own in every]).astype(float)


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_parts_add_up_to_the_map_that_is_predicted(fitted, images, geometry):
    detector, stages = model_of(fitted, geometry), fitted.stages
    explain = explaining.make_explainer(detector, stages, least=-np.inf)
    found = list(explain(images))
    predicted = predicting.make_scorer(detector, stages)(images)
    for image, one, expected in zip(images, found, predicted, strict=True):
        np.testing.assert_array_equal(one.anomaly_map, expected.anomaly_map)
        assert one.score == expected.score and len(one.places) == 3
        native = to_size(expected.anomaly_map, image.shape)
        values = [place.value for place in one.places]
        assert values == sorted(values, reverse=True)
        for place in one.places:
            assert sum(view.part for view in place.views) == pytest.approx(place.value, abs=2e-4)
            y, x = (int(s * n) for s, n in zip((place.y, place.x), image.shape, strict=True))
            if geometry in ("square", "crop"):  # found on the square, between the image's pixels
                near = native[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2]
                assert near.min() - 1e-4 <= place.value <= near.max() + 0.1 * np.ptp(native)
            else:
                assert place.value == native[y, x]
        if geometry not in ("square", "crop"):
            assert values[0] == native.max()


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_a_bank_adds_what_it_would_add_to_the_whole_map(fitted, images, geometry):
    """Put together from all windows, each with its share of the halo and of what is nominal."""
    detector, stages = model_of(fitted, geometry), fitted.stages
    explain = explaining.make_explainer(detector, stages, least=-np.inf)
    several = "+" in geometry
    for image in images:
        (one,) = explain([image])
        split = splits.laid(splits.of_arrays([image]), detector.method.geometries)
        (of_looks,) = looks.apart(split, stages, {"nearest": detector.state})
        # What the image's score adds everywhere is shared by all that is looked at.
        plain = dataclasses.replace(detector.method, breadth=0.0, image_prior=0.0)
        without = looks.together(plain, detector.state, of_looks[0]).anomaly_map
        whole = looks.together(detector.method, detector.state, of_looks[0]).anomaly_map
        joined = whole.shape
        prior = (whole - without).mean() / len(of_looks[0])
        size = joined if geometry in ("square", "crop") else image.shape
        expected = {}
        for i, (seen, look, own) in enumerate(
            zip(splits.looks(split), detector.state.looks, of_looks[0], strict=True)
        ):
            maps = maps_of_banks(stages, seen, look, image.shape, joined, size)
            halo = maps.sum(axis=0) - to_size(to_size(own.anomaly_map, joined), size)
            assert np.ptp(halo) < 1e-3  # one for all of the image
            streams = detector.method.has_streams
            assert (halo.mean() > 0.01) if streams else (abs(halo) < 1e-5).all()
            mean, spread = (1 + i, 3 + i) if several else (0, 1)
            kind = f"{detector.method.geometries[i].kind}: " if several else ""
            for stream, of_bank, weight in zip(
                stages.streams, maps, np.asarray(look.map_weights), strict=True
            ):
                added = (of_bank - weight * (halo.mean() + mean)) / spread
                added = added / (2 if several else 1) + weight * prior
                expected[kind + stream.name] = added
        box = (split.examples[0].window or Window((0, 0, *image.shape))).box
        for place in one.places:
            row = (place.y * image.shape[0] - box[0]) / (box[2] - box[0]) * size[0]
            column = (place.x * image.shape[1] - box[1]) / (box[3] - box[1]) * size[1]
            assert {view.stream for view in place.views} == set(expected)
            for view in place.views:
                part = expected[view.stream][int(row), int(column)]
                assert view.part == pytest.approx(part, abs=1e-3)


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_patches_lie_where_the_places_are(fitted, images, geometry):
    detector, stages = model_of(fitted, geometry), fitted.stages
    found = explaining.make_explainer(detector, stages, least=-np.inf)(images)
    for image, one in zip(images, found, strict=True):
        for place in one.places:
            for view in place.views:
                kind = view.geometry.kind
                assert view.stream.startswith(f"{kind}: ") == ("+" in geometry)
                top, left, bottom, right = view.window.box
                y, x = place.y * image.shape[0], place.x * image.shape[1]
                assert top <= y <= bottom and left <= x <= right
                box = places.cell_box(view.cell, view.grid, image.shape, view.window)
                assert box.left >= 0 and box.left + box.width <= image.shape[1]
                assert box.top >= 0 and box.top + box.height <= image.shape[0]
                # Pixels of a map of another size lie between those of the image; and the last
                # patch of a window that is padded may end half a cell before it does.
                slack = np.array([1.0, 1.0]) if kind in ("square", "crop") else np.zeros(2)
                cell = np.array([bottom - top, right - left]) / view.grid / view.window.extent
                slack += np.where(np.array(view.window.extent) < 1, cell / 2, 0)
                assert box.top - slack[0] <= y <= box.top + box.height + slack[0]
                assert box.left - slack[1] <= x <= box.left + box.width + slack[1]


@pytest.mark.parametrize("geometry", ["tile", "square+tile"])
def test_it_does_not_matter_what_else_is_explained(fitted, images, geometry):
    """Of images that are squares alone no map is put together, and yet all is the same."""
    detector, stages = model_of(fitted, geometry), fitted.stages
    # Of several looks, the map of a small image is resized in other steps then.
    close = 0.1 if "+" in geometry else 1e-3
    explain = explaining.make_explainer(detector, stages, least=-np.inf)
    for image, among in zip(images, explain(images), strict=True):
        (alone,) = explain([image])
        for one, other in zip(alone.places, among.places, strict=True):
            assert (one.x, one.y) == (other.x, other.y)
            assert one.value == pytest.approx(other.value, abs=close)
            shown = {v.stream: v for v in one.views}
            for view in other.views:
                assert shown[view.stream].part == pytest.approx(view.part, abs=close)
                assert shown[view.stream].window == view.window
                assert shown[view.stream].cell == view.cell


def test_no_images_have_no_explanations(fitted):
    detector = model_of(fitted, "square+tile")
    assert list(explaining.make_explainer(detector, fitted.stages, least=0.0)([])) == []


class Asked(NamedTuple):
    """An embedder that says what it was asked for."""

    own: object
    boxes: list

    def batches(self, split):
        self.boxes.append([example.window.box for example in split.examples])
        return self.own.batches(split)


def test_of_tiles_the_one_in_which_a_place_lies_deepest(fitted, images):
    """And only windows that show a place are embedded again."""
    detector, stages = model_of(fitted, "tile"), fitted.stages
    asked = []
    asking = stages._replace(embedders=tuple(Asked(own, asked) for own in stages.embedders))
    split = splits.laid(splits.of_arrays(images[:1]), detector.method.geometries)
    shape = images[0].shape
    marked = contributions.Marked([(5, 30), (5, 35), (5, 100)], shape, shape)
    (look,) = detector.state.looks
    (found,) = contributions.at_places(split, asking, look, [marked])
    boxes = [(0, left, 40, left + 40) for left in (0, 23, 47, 70)]
    assert asked == [[boxes[0], boxes[1], boxes[3]]] * len(stages.embedders)
    # Column 30 is 9.5 pixels inside the first tile's right border, 7.5 inside the second's left;
    # column 35 is 4.5 and 12.5.
    assert [window.box for window in found.windows] == [boxes[0], boxes[1], boxes[3]]
    patches = next(stages.batches(splits.views(split).split))
    for i, stream in enumerate(stages.streams):
        for place, (window, column) in enumerate([(0, 30), (1, 35 - 23)]):
            cell = (5 * stream.grid // 40) * stream.grid + column * stream.grid // 40
            assert found.cells[i][place] == cell
            np.testing.assert_allclose(found.patches[i][place], patches[i][window][cell], atol=1e-5)
