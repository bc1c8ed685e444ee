import numpy as np
import pytest

from sgfr_jax import metrics
from sgfr_jax.commands.pages.pixels import PixelScores, keep_all
from tests.test_metrics import make_case


@pytest.mark.parametrize("exact", [True, False])
def test_in_batches_as_all_at_once(exact):
    maps, masks = make_case(0, 6)
    maps -= maps.min()
    scores, labels = maps.max(axis=(1, 2)), masks.any(axis=(1, 2))
    counted = PixelScores(5, 0, exact=exact) if not exact else None
    if exact:
        # Square maps, as those of a run are.
        maps, masks = maps[:, :, :24], masks[:, :, :24]
        counted = PixelScores(4, 24, exact=True)
    for i in (0, 3):
        counted.add(maps[i : i + 3], masks[i : i + 3])
    found = metrics.measure(*counted.rankings(scores, labels))
    expected = metrics.evaluate(scores, labels, maps, masks)
    assert found == pytest.approx(expected, abs=0 if exact else 1e-4)


@pytest.mark.parametrize("exact", [True, False])
def test_no_masks(exact):
    counted = PixelScores(0, 8, exact=exact)
    found = counted.rankings(np.array([0.0, 1.0]), np.array([False, True]))
    assert metrics.measure(*found).image_auroc == 1.0 and found.pixels is found.regions is None


def test_all_are_kept_while_they_fit():
    assert keep_all(583, 256, 2, "auto") and not keep_all(10**5, 256, 1, "auto")
    assert keep_all(10**5, 256, 1, "exact") and not keep_all(1, 8, 1, "streaming")
