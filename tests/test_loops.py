import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from sgfr_jax import loops


def longest(begin):
    """Halves numbers until none is above 1: a count and a sum that start as constants."""

    def halve(numbers):
        state = begin((0, jnp.zeros(()), numbers), numbers)
        return jax.lax.while_loop(
            lambda state: jnp.any(state[2] > 1),
            lambda state: (state[0] + 1, state[1] + state[2][0], state[2] / 2),
            state,
        )[:2]

    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    return jax.shard_map(
        lambda x: [part[None] for part in halve(x)],
        mesh=mesh,
        in_specs=P("data"),
        out_specs=P("data"),
    )


def test_a_loop_begins_with_the_type_it_goes_on_with():
    numbers = jnp.array([8.0, jnp.nan])
    with pytest.raises(TypeError, match="carry"):
        jax.eval_shape(longest(lambda carry, *inputs: carry), numbers)
    count, total = jax.jit(longest(loops.begin))(numbers)
    assert count == 3 and total == 8 + 4 + 2  # NaN among the inputs reaches no carry


def test_outside_of_shard_map_nothing_is_done():
    carry = {"a": np.ones(3), "b": 0}
    assert loops.begin(carry, jnp.ones(2)) is carry
