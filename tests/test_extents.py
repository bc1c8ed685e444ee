import jax.numpy as jnp
import numpy as np
import pytest

from sgfr_jax import extents, maps

CASES = [((1.0, 1.0), (6, 5)), ((0.5, 1.0), (3, 5)), ((0.01, 0.3), (1, 2)), ((0.74, 0.9), (4, 5))]


@pytest.mark.parametrize("extent,filled", CASES)
def test_cells_by_hand(rng, extent, filled):
    given = jnp.asarray([extent])
    shown = np.zeros((6, 5), bool)
    shown[: filled[0], : filled[1]] = True
    np.testing.assert_array_equal(extents.inside(given, (6, 5))[0], shown)

    distance = np.asarray(extents.border_distance(given, (6, 5))[0])
    assert (distance[~shown] < 0).all()
    for y, x in zip(*np.nonzero(shown), strict=True):
        assert distance[y, x] == min(y, x, filled[0] - 1 - y, filled[1] - 1 - x)

    scores = rng.normal(size=(1, 6, 5)).astype(np.float32)
    inside = scores[0, : filled[0], : filled[1]]
    expected = np.pad(inside, ((0, 6 - filled[0]), (0, 5 - filled[1])), mode="edge")
    np.testing.assert_array_equal(extents.extend(jnp.asarray(scores), given)[0], expected)


def test_padding_never_scores(rng):
    """Nor does it change the map of what is shown, away from the last cells."""
    scores = rng.uniform(size=(2, 8, 8)).astype(np.float32)
    given = jnp.asarray([[0.5, 1.0], [1.0, 1.0]])
    loud = scores.copy()
    loud[0, 4:] = 100
    quiet, found = (
        maps.anomaly_map(jnp.asarray(s), (32, 32), sigma=2.0, extents=given) for s in (scores, loud)
    )
    np.testing.assert_array_equal(quiet, found)
    assert float(found.max()) <= 1
    np.testing.assert_allclose(
        found[1], maps.anomaly_map(jnp.asarray(scores), (32, 32), sigma=2.0)[1], rtol=1e-6
    )
    values = jnp.asarray(loud)
    assert float(maps.image_score(values, given)[0]) == scores[0, :4].max()
    assert float(maps.image_score(values)[0]) == 100
