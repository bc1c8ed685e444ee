import base64
import hashlib
import io
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage.draw import polygon2mask

from sgfr_jax import curves, metrics
from sgfr_jax.commands.pages import review
from sgfr_jax.datasets import Example, images


def example(name, kind="good"):
    return Example(name, None, int(kind != "good"), kind, None)


def pixels(size=(8, 8), mask=False, grey=True):
    image = np.random.default_rng(0).integers(0, 255, (*size, 3), np.uint8)
    image = np.repeat(image[..., :1], 3, axis=2) if grey else image
    return images.Loaded(image, None if mask is None else np.zeros(size, bool) | mask)


def select(num, items):
    """The names by group of a selection that has seen (name, kind, score)."""
    selection = review.Selection(num)
    for name, kind, score in items:
        selection.add(example(name, kind), pixels(), np.zeros((8, 8), np.float32), score)
    chosen = selection.chosen()
    return {g: [p["file"] for p in chosen if p["group"] == g] for g in review.GROUPS}


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["good", "cut", "dent"]), st.integers(0, 5)),
                max_size=14), st.integers(1, 5))  # fmt: skip
def test_the_same_as_sorting_all(kinds_and_scores, num):
    items = [(f"{i}.png", kind, score) for i, (kind, score) in enumerate(kinds_and_scores)]
    found = select(num, items)
    defective = [item for item in items if item[1] != "good"]
    nominal = [item for item in items if item[1] == "good"]
    assert found["misses"] == [n for n, _, s in sorted(defective, key=lambda i: i[2])][:num]
    assert found["alarms"] == [n for n, _, s in sorted(nominal, key=lambda i: -i[2])][:num]
    drawn = []
    for kind in ("cut", "dent", "good"):
        of_kind = [name for name, k, _ in items if k == kind]
        by_hash = sorted(of_kind, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
        drawn += by_hash[: max(1, num // 4)]
    shown = found["misses"] + found["alarms"]
    assert found["drawn"] == [name for name in drawn if name not in shown]


def test_nothing_is_selected_unless_asked():
    assert select(0, [("a", "good", 1.0)]) == {"misses": [], "alarms": [], "drawn": []}


def decoded(text):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))


@pytest.mark.parametrize("size,shown", [((40, 64), (64, 40)), ((640, 400), (200, 320))])
def test_a_picture_holds_image_map_and_outline(rng, size, shown):
    rows, columns = np.mgrid[: size[0], : size[1]] / max(size)
    anomaly_map = (np.sin(7 * rows) + columns - 3).astype(np.float32)
    mask = np.zeros(size, bool)
    mask[size[0] // 4 : size[0] // 2, 3 : size[1] // 2] = True
    mask[size[0] // 3, size[1] // 4] = False
    selection = review.Selection(1)
    selection.add(example("a", "cut"), pixels(size, mask, grey=False), anomaly_map, 0.25)
    (picture,) = selection.chosen()
    assert picture["size"] == shown and picture["score"] == 0.25
    assert decoded(picture["image"]).shape == (*shown[::-1], 3)
    levels = decoded(picture["map"])
    back = picture["low"] + (picture["high"] - picture["low"]) * levels / 255.0
    wanted = np.asarray(Image.fromarray(anomaly_map).resize(shown, Image.Resampling.BILINEAR))
    assert np.abs(back - wanted).max() <= 0.51 * (wanted.max() - wanted.min()) / 255
    # Crossings counted, as browsers and COCO do, the rings are the mask again.
    inside = np.zeros(shown[::-1], bool)
    for ring in picture["outline"]:
        corners = np.reshape(ring, (-1, 2))[:, ::-1]
        inside ^= polygon2mask(inside.shape, corners - 0.5)
    smaller = np.asarray(Image.fromarray(mask).resize(shown, Image.Resampling.NEAREST))
    assert (inside != smaller).mean() < 0.01


def test_grey_images_unknown_masks_and_flat_maps():
    selection = review.Selection(1)
    flat = np.full((8, 8), 2.0, np.float32)
    selection.add(example("a", "cut"), pixels(mask=None), flat, 2.0)
    (picture,) = selection.chosen()
    assert decoded(picture["image"]).shape == (8, 8) and picture["outline"] is None
    assert picture["low"] == picture["high"] == 2.0 and not decoded(picture["map"]).any()


def test_thousands_of_images_leave_little(tmp_path):
    rng = np.random.default_rng(0)
    selection = review.Selection(16)
    image = images.Loaded(rng.integers(0, 255, (128, 128, 3), np.uint8), np.zeros((128, 128), bool))
    scores = rng.random(5000)
    anomaly_map = rng.random((128, 128)).astype(np.float32)  # noise: what compresses least
    for i, score in enumerate(scores):
        kind = f"kind{i % 10}" if i % 2 else "good"
        selection.add(example(f"{i}", kind), image, anomaly_map, score)
    review.save(tmp_path, "cap", {}, selection, {})
    assert len(selection.chosen()) <= 2 * 16 + 6 * 4
    assert review.path(tmp_path, "cap").stat().st_size < 6e6


def test_a_review_belongs_to_its_results(tmp_path):
    ranking = metrics.rank(np.arange(4.0), np.array([False, True, False, True]))
    results = {"image_auroc": 0.75, "seconds": {"metrics": 0.1}}
    points = {"ridge": curves.thin(ranking), "nearest": None}
    review.save(tmp_path, "a/b", results, review.Selection(1), points)
    found = review.load(tmp_path, "a/b", json.loads(json.dumps(results)))
    assert found.curves["nearest"] is None and found.pictures == []
    assert found.curves["ridge"]["true_positives"] == [1, 2]
    assert found.curves["ridge"]["num_negatives"] == 2
    assert review.load(tmp_path, "a/b", results | {"image_auroc": 0.76}) is None
    assert review.load(tmp_path, "other", results) is None
    review.path(tmp_path, "a/b").write_text('{"results": ')
    assert review.load(tmp_path, "a/b", results) is None
