"""Loops that run on one device as on each of many, inside `jax.shard_map`."""

import functools
from typing import TypeVar

import jax
import jax.numpy as jnp

Carry = TypeVar("Carry")


def begin(carry: Carry, *inputs: jax.Array) -> Carry:
    """The first carry of a loop, typed as the loop's body will return it.

    Inside `jax.shard_map` the type of an array tells which axes of the mesh its values vary over,
    and a carry must keep its type. One that starts as a constant varies over none, but is made of
    the inputs from then on.

    Args:
      carry: a pytree of arrays.
      inputs: pytrees of all arrays that the loop's body makes the next carry of.

    Returns:
      The carry, with its values; outside `jax.shard_map` the very same.
    """
    if not jax.sharding.get_abstract_mesh().manual_axes:
        return carry
    # Zeros of an array's kind have its type and none of its values, such as NaN.
    marks = [jnp.zeros_like(x, shape=(), dtype=bool) for x in jax.tree.leaves((carry, inputs))]
    mark = functools.reduce(jnp.logical_or, marks)
    return jax.tree.map(lambda x: jnp.where(mark, x, x), carry)
