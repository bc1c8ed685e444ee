import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgfr_jax.detector import programs, services
from sgfr_jax.detector.method import Method
from sgfr_jax.detector.services import PLAIN, Services
from sgfr_jax.errors import ArgumentError


def test_by_default_one_process_does_everything_on_one_device_and_says_nothing(capfd):
    assert Services() == PLAIN
    assert PLAIN.share(5) == PLAIN.share_images(5) == range(5)
    assert PLAIN.joined([1, 2]) == [1, 2] and PLAIN.agreed("value") == "value"
    assert PLAIN.sample is None and PLAIN.kept is None and PLAIN.workers == 0
    tree = {"a": np.ones(3)}
    assert PLAIN.replicate(tree) is tree
    assert PLAIN.put(np.ones(3)).devices() == {jax.devices()[0]}
    with PLAIN.progress("a title", 3, "images") as report:
        report(3)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "given,message",
    [
        (None, "^services=None must be a `Services`"),
        (Services(batch_size=0), "^batch_size=0 must be a whole number, from 1"),
        (Services(batch_size=2.5), "^batch_size=2.5 must be a whole number"),
        (Services(workers=-1), "^workers=-1 must be a whole number, from 0"),
    ],
)
def test_sizes_that_are_none(given, message):
    with pytest.raises(ArgumentError, match=message):
        programs.make(Method(), (), given)


def test_functions_are_compiled_with_their_static_arguments():
    traced = []

    def function(state, batch, *, by):
        traced.append(by)
        return state + by * batch

    compiled = PLAIN.compile(function, static=("by",))
    for by in (2, 2, 3):
        assert compiled(jnp.ones(2), jnp.ones(2), by=by).tolist() == [1.0 + by] * 2
    assert traced == [2, 3]
    assert hash(PLAIN.compile) and hash(PLAIN.jit)  # what is compiled is found again by them


def test_rows_of_all_processes_come_in_their_order():
    rows = np.arange(6).reshape(3, 2)
    assert services.concatenated(PLAIN, rows) is rows
    two = PLAIN._replace(joined=lambda own: [*own, own[0] + 10])
    np.testing.assert_array_equal(
        services.concatenated(two, rows), np.concatenate([rows, rows + 10])
    )


def test_short_batches_are_padded_to_one_shape():
    padded = services.pad(np.ones((2, 3)), 4)
    np.testing.assert_array_equal(padded, [[1] * 3, [1] * 3, [0] * 3, [0] * 3])
    whole = np.ones((4, 3))
    assert services.pad(whole, 4) is whole
