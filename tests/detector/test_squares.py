from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from jax.sharding import PartitionSpec as P

from sgfr_jax import sharding
from sgfr_jax.datasets import images as reading
from sgfr_jax.detector import looks, model, scoring, squares
from sgfr_jax.detector.squares import score_squares
from sgfr_jax.detector.state import Nulls, State
from sgfr_jax.errors import ArgumentError
from tests.detector import made_models, pretended


@pytest.fixture(params=["one_bank", "streams"], scope="module")
def small(request):
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def scored(small):
    """A detector, what it looks at, and its program, compiled once."""
    detector = detector_of(small)
    return detector, squares_of(small, detector), jax.jit(partial(score_squares, detector))


def detector_of(small):
    about = made_models.of(small.stages.method, pretended.NETWORK).about
    state = small.fitted.states["nearest"]
    return model.Detector(state, Nulls(None, None), small.stages.method, pretended.NETWORK, about)


def squares_of(small, detector, num=6):
    """Test images at every size that the detector looks at."""
    every = [example.image for example in small.test.examples[:num]]
    return [
        np.stack([reading.read_image(x, size) for x in every]) for size in squares.sizes(detector)
    ]


def test_compiled_it_scores_as_the_detector_does(small, scored):
    detector, found, score = scored
    maps, scores = score(detector.state, found)
    expected = [
        whole for (whole,) in looks.whole_images(small.test, small.stages, small.fitted.states)
    ]
    np.testing.assert_allclose(scores, [one.score for one in expected], rtol=1e-4, atol=1e-4)
    for own, one in zip(maps, expected, strict=True):
        np.testing.assert_allclose(own, one.anomaly_map, rtol=1e-4, atol=1e-3)


def test_the_weights_may_be_an_argument_and_states_share_a_program(small):
    detector, traced = detector_of(small), []
    loaded = squares.load_network(detector)
    assert loaded.embed is pretended.embed

    @jax.jit
    def score(state, weights, found):
        traced.append(True)
        return score_squares(detector, state, found, loaded=loaded._replace(state=weights))[1]

    found = squares_of(small, detector)
    own = score(detector.state, loaded.state, found)
    half = jax.tree.map(lambda x: x / 2, loaded.state)
    assert not np.allclose(own, score(detector.state, half, found), rtol=1e-3)
    other = jax.tree.map(lambda x: x, detector.state)
    np.testing.assert_array_equal(own, score(other, loaded.state, found))
    assert traced == [True]


def test_states_are_stacked_and_mapped_over(scored):
    detector, found, score = scored
    (look,) = detector.state.looks
    banks = tuple(bank._replace(atoms=bank.atoms[:, ::-1]) for bank in look.banks)
    other = detector.state._replace(looks=(look._replace(banks=banks),))
    both = jax.tree.map(lambda *leaves: np.stack(leaves), detector.state, other)
    mapped = jax.jit(jax.vmap(partial(score_squares, detector), in_axes=(0, None)))
    maps, scores = mapped(both, found)
    assert maps.shape == (2, 6, 64, 64) and scores.shape == (2, 6)
    for own, state in zip(scores, (detector.state, other), strict=True):
        np.testing.assert_allclose(own, score(state, found)[1], rtol=1e-4, atol=1e-4)
    assert not np.allclose(scores[0], scores[1], rtol=1e-2)


def test_scores_have_gradients_with_respect_to_pixels(small):
    """Finite and not zero; along itself as large as differences say."""
    detector = detector_of(small)
    pixels = [np.float32(x[-1:]) for x in squares_of(small, detector)]

    @jax.jit
    @jax.value_and_grad
    def score(pixels):
        return score_squares(detector, detector.state, pixels)[1][0]

    gradient = list(map(np.asarray, score(pixels)[1]))
    assert all(np.isfinite(x).all() and np.abs(x).max() > 0 for x in gradient)
    norm = np.sqrt(sum(np.sum(np.square(x)) for x in gradient))
    step = [0.1 * x / norm for x in gradient]
    up, down = (score([x + by * s for x, s in zip(pixels, step, strict=True)])[0] for by in (1, -1))
    assert 0.1 * norm == pytest.approx(float(up - down) / 2, rel=0.1)


def test_padding_counts_for_nothing_and_coding_can_be_chosen(one_bank):
    detector = detector_of(one_bank)
    (found,) = squares_of(one_bank, detector, 1)
    score = jax.jit(partial(score_squares, detector), static_argnames="coding")
    extents = np.float32([[1, 0.25]])
    _, half = score(detector.state, [found], extents=extents)
    other = found.copy()
    other[:, :, 56:] = 255 - other[:, :, 56:]  # far from what is shown
    _, same = score(detector.state, [other], extents=extents)
    np.testing.assert_allclose(half, same, rtol=1e-5)
    code = scoring.usual_coding(detector.method, "nearest").code
    _, at_once = score(detector.state, [found], extents=extents, coding=scoring.Coding(code, 64))
    np.testing.assert_allclose(at_once, half, rtol=1e-5)


def test_squares_of_other_sizes_are_refused(streams):
    detector = detector_of(streams)
    assert squares.sizes(detector) == (64, 96)
    small, large = squares_of(streams, detector)
    sides = (small[:, :, :48], large), (small[..., :1], large), (small, large[:3]), (small[0],)
    for wrong in ([small], [large, small], [small, large, large], [], *sides):
        with pytest.raises(ArgumentError, match=r"^squares=.* must be \[B, size, size, 3\].*96"):
            score_squares(detector, detector.state, wrong)


def test_several_looks_are_refused(one_bank):
    detector = detector_of(one_bank)
    twice = State(detector.state.looks * 2, None, jnp.array([True, False]))
    with pytest.raises(ArgumentError, match="fit with geometry=square"):
        score_squares(detector, twice, squares_of(one_bank, detector, 1))


def test_an_exported_program_takes_a_state(scored):
    detector, found, score = scored
    written = export.export(score)(detector.state, found)
    read = export.deserialize(bytearray(written.serialize()))
    ours = score(detector.state, found)
    for own, theirs in zip(ours, read.call(detector.state, found), strict=True):
        np.testing.assert_allclose(own, theirs, rtol=1e-4, atol=1e-3)


def test_squares_are_shared_by_devices(scored):
    """Traced with the check of which values vary; one device runs it."""
    (detector, found, score), mesh = scored, sharding.make_mesh(jax.devices()[:1])
    shared = jax.shard_map(
        partial(score_squares, detector), mesh=mesh, in_specs=(P(), P(sharding.DATA)),
        out_specs=P(sharding.DATA), check_vma=True,
    )  # fmt: skip
    ours = score(detector.state, found)
    for own, theirs in zip(ours, jax.jit(shared)(detector.state, found), strict=True):
        np.testing.assert_allclose(own, theirs, rtol=1e-4, atol=1e-3)
