import numpy as np

from sgfr_jax.detector import programs, streams
from sgfr_jax.detector.services import PLAIN, compile_plainly
from tests.detector import pretended


def of(services=PLAIN, solver=None, **fields):
    method = pretended.settled(**fields)
    planned = streams.plan(method, pretended.NETWORK)
    return programs.make(method, planned, services, solver)


def test_methods_that_score_alike_share_programs():
    assert of() is of(bank_size=7) is of(sampler="random") is of(solver="affine_ridge")
    assert of(PLAIN._replace(batch_size=3, workers=2)) is of()


def test_methods_that_do_not_have_programs_of_their_own():
    others = [
        of(num_neighbors=4), of(sigma=1.0), of(halo=0.0), of(image_size=96), of(layers=("fast",)),
        of(PLAIN._replace(compile=lambda *args, **kwargs: compile_plainly(*args, **kwargs))),
        of(), of(solver="nearest"),
    ]  # fmt: skip
    assert len(set(map(id, others))) == len(others)


def test_many_images_are_scored_some_at_a_time():
    shapes = []

    def compiled(state, batch):
        shapes.append(batch["x"].shape)
        return state * batch["x"], batch["x"].sum(axis=1)

    x = np.arange(80.0).reshape(40, 2)
    scaled, sums = programs.in_batches(compiled, 3.0, {"x": x})
    np.testing.assert_array_equal(scaled, 3 * x)
    np.testing.assert_array_equal(sums, x.sum(axis=1))
    assert shapes == [(16, 2)] * 3  # the last is padded: one shape compiles once


def test_windows_of_one_bank_are_joined_by_their_highest_score():
    """Its map is as it is."""
    made = of(layers=("fast",))
    look = type("Plain", (), {"calibrations": ()})
    own = np.ones((4, 5), np.float32)
    joined, score = made.join(look, own, np.float32([[1, 1], [3, 3]]), alone=True)
    assert joined is own and score == 3


def test_baselines_code_by_their_own_names():
    method = pretended.settled(solver="ridge")
    planned = streams.plan(method, pretended.NETWORK)
    own = programs.make(method, planned, PLAIN)
    assert own is programs.make(method, planned, PLAIN, "ridge")
    assert own is not programs.make(method, planned, PLAIN, "nearest")
