"""What banks add to anomaly maps, of small detectors that look at images in every way."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgfr_jax import datasets, thresholds
from sgfr_jax.commands import run
from sgfr_jax.commands.flags import config, usage
from sgfr_jax.datasets.geometry import Window, assemble, to_size
from sgfr_jax.detector import (
    assembly,
    explanations,
    loading,
    looks,
    models,
    nulls,
    parts,
    places,
    synthetic,
)
from tests.small import SMALL, texture, write_folder

# Of eight tiles, more than a batch; of a tile's size; smaller than one, and than the square.
SHAPES = [(60, 110), (40, 40), (30, 50)]
TILE = 40
GEOMETRIES = ["square", "pad", "crop", "tile", "square+tile"]
BANKS = {"one bank": ("block2", "block4"), "streams": ("block4@1", "block10@1.5")}


@pytest.fixture(scope="module", params=BANKS)
def fitted(request, tmp_path_factory):
    """A detector and what it was fitted to, once for all geometries."""
    photographs = write_folder(tmp_path_factory.mktemp("parts"))
    asked = dataclasses.replace(
        SMALL, data_dir=str(photographs), layers=BANKS[request.param], solver="nearest"
    )
    settings = config.resolve(usage.cleared(asked))
    detector, _ = run.make_detector(settings, run.Resources(Path("unused"), batch_size=3))
    data = datasets.load(settings.dataset, settings.data_dir)
    hashes = {c.name: loading.hash_images(c.train) for c in data}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic, "SIZES", (0.1, 0.4))
        patch.setitem(synthetic.draw.__kwdefaults__, "copies", 1)
        found = detector.fit(loading.check(data, settings, hashes, ())[0])
    return settings, detector, found


def model_of(fitted, geometry):
    """A model of the same banks, whatever it looks at; its images have halos."""
    settings, _, found = fitted
    state, origins = found.states["nearest"], found.origins
    if settings.has_streams:
        state = state._replace(halo_above=jnp.float32(-1))
    if "+" in geometry:
        other = state
        if settings.has_streams:
            other = state._replace(map_weights=state.map_weights[::-1])
        nominal = looks.Nominal(*(jnp.array(x, jnp.float32) for x in np.arange(1, 9).reshape(4, 2)))
        state = looks.Several((state, other), nominal, jnp.array([True, False]))
        origins *= 2
    tally = thresholds.tally(np.arange(4.0))
    names = tuple(f"train/{i}" for i in range(5))
    about = models.About("cap", "", names, (), (), "", "{}", (), None, "", ())
    tile = TILE if "tile" in geometry else None
    settings = dataclasses.replace(settings, geometry=geometry, tile=tile)
    return models.Model(state, origins, nulls.Nulls(tally, tally), settings, about)


@pytest.fixture
def images(rng):
    found = [texture(rng, 120)[: shape[0], : shape[1]].copy() for shape in SHAPES]
    for image in found:
        image[12:20, 25:35] = 255
    return found


def maps_of_banks(detector, look, state, shape, joined, size):
    """Of the one image of a look what its banks add to the map, put together from all windows."""
    seen, found = loading.views(look), []
    for batch in assembly.batches(detector, seen):
        of_batch = detector.parts["nearest"](state, batch.patches, batch.extents)
        found.append(np.asarray(of_batch)[:, : batch.num])
    every = np.concatenate(found, axis=1)
    if look.windows is not None:
        overlap = look.geometry.overlap
        every = [assemble(own, look.windows[0], shape, overlap=overlap) for own in every]
    else:
        every = every[:, 0]
    return np.stack([to_size(to_size(own, joined), size) for own in every]).astype(float)


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_parts_add_up_to_the_map_that_is_predicted(fitted, images, geometry):
    model, detector = model_of(fitted, geometry), fitted[1]
    explain = explanations.make_explainer(model, detector, least=-np.inf)
    found = list(explain(images))
    predicted = models.make_scorer(model, detector=detector)(images)
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
    model, detector = model_of(fitted, geometry), fitted[1]
    explain = explanations.make_explainer(model, detector, least=-np.inf)
    several = "+" in geometry
    for image in images:
        (one,) = explain([image])
        split = loading.laid(models.as_split([image]), model.config.geometries)
        (of_looks,) = looks.apart(split, detector, {"nearest": model.state}, [0.0])
        # What the image's score adds everywhere is shared by all that is looked at.
        plain = detector._replace(breadth=0.0, image_prior=0.0)
        without = looks.together(plain, model.state, of_looks[0]).anomaly_map
        whole = looks.together(detector, model.state, of_looks[0]).anomaly_map
        joined = whole.shape
        prior = (whole - without).mean() / len(of_looks[0])
        size = joined if geometry in ("square", "crop") else image.shape
        expected = {}
        for i, (look, state, own) in enumerate(
            zip(loading.looks(split), looks.states(model.state), of_looks[0], strict=True)
        ):
            maps = maps_of_banks(detector, look, state, image.shape, joined, size)
            halo = maps.sum(axis=0) - to_size(to_size(own.anomaly_map, joined), size)
            assert np.ptp(halo) < 1e-3  # one for all of the image
            assert (halo.mean() > 0.01) if model.config.has_streams else (abs(halo) < 1e-5).all()
            weights = np.asarray(getattr(state, "map_weights", np.ones(1)))
            mean, spread = (1 + i, 3 + i) if several else (0, 1)
            kind = f"{model.config.geometries[i].kind}: " if several else ""
            for (side, levels, _), of_bank, weight in zip(
                models.layout(model.config), maps, weights, strict=True
            ):
                added = (of_bank - weight * (halo.mean() + mean)) / spread
                added = added / (2 if several else 1) + weight * prior
                expected[f"{kind}{levels}@{side}"] = added
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
    model, detector = model_of(fitted, geometry), fitted[1]
    found = explanations.make_explainer(model, detector, least=-np.inf)(images)
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
    model, detector = model_of(fitted, geometry), fitted[1]
    # Of several looks, the map of a small image is resized in other steps then.
    close = 0.02 if "+" in geometry else 1e-3
    explain = explanations.make_explainer(model, detector, least=-np.inf)
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
    model = model_of(fitted, "square+tile")
    assert list(explanations.make_explainer(model, fitted[1], least=0.0)([])) == []


def test_of_tiles_the_one_in_which_a_place_lies_deepest(fitted, images):
    """And only windows that show a place are embedded again."""
    model, detector = model_of(fitted, "tile"), fitted[1]
    asked = []

    def batches(split):
        asked.append([example.window.box for example in split.examples])
        return detector.batches(split)

    split = loading.laid(models.as_split(images[:1]), model.config.geometries)
    marked = parts.Marked([(5, 30), (5, 35), (5, 100)], images[0].shape, images[0].shape)
    state = model.state
    grids = [grid for _, _, grid in models.layout(model.config)]
    (found,) = parts.at_places(
        split, detector._replace(batches=batches), "nearest", state, grids, [marked]
    )
    boxes = [(0, left, 40, left + 40) for left in (0, 23, 47, 70)]
    assert asked == [[boxes[0], boxes[1], boxes[3]]]
    # Column 30 is 9.5 pixels inside the first tile's right border, 7.5 inside the second's left;
    # column 35 is 4.5 and 12.5.
    assert [window.box for window in found.windows] == [boxes[0], boxes[1], boxes[3]]
    patches = jax.tree.leaves(next(iter(detector.batches(loading.views(split).split))))
    for i, grid in enumerate(grids):
        for place, (window, column) in enumerate([(0, 30), (1, 35 - 23)]):
            cell = (5 * grid // 40) * grid + column * grid // 40
            assert found.cells[i][place] == cell
            np.testing.assert_allclose(found.patches[i][place], patches[i][window][cell], atol=1e-5)
