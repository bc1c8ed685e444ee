"""The mesh of devices, and rows that divide among them."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh

DATA, ATOMS = "data", "atoms"


def make_mesh(devices: Sequence[jax.Device] | np.ndarray, *, num_atoms_shards: int = 1) -> Mesh:
    """A mesh of axes `DATA` and `ATOMS` over all of the devices given.

    Args:
      devices: a sequence or an array, in the order in which they are laid out, atoms fastest.
      num_atoms_shards: how many parts a bank is split into.

    Raises:
      ValueError: if there is no device, or the parts do not divide the devices.
    """
    given = np.asarray(devices, object)
    if num_atoms_shards < 1 or not given.size or given.size % num_atoms_shards:
        raise ValueError(
            f"num_atoms_shards={num_atoms_shards} must divide the {given.size} devices, of which"
            " there must be one at least"
        )
    laid_out = given.reshape(-1, num_atoms_shards)
    # Explicit axes fail under `vmap`.
    return Mesh(laid_out, (DATA, ATOMS), axis_types=(AxisType.Auto,) * 2)


def pad_rows(array: jax.Array, multiple: int) -> jax.Array:
    """The array with zero rows added until `multiple` divides them; `[:len(array)]` undoes it.

    Args:
      array: `[N, ...]`.
      multiple: such as `mesh.shape[DATA]`.

    Returns:
      `[N + P, ...]` with `0 <= P < multiple`.

    Raises:
      ValueError: if `multiple` is not positive, or the array has no rows but is a single number.
    """
    if multiple < 1:
        raise ValueError(f"multiple={multiple}; it must be positive, such as a number of devices")
    if array.ndim < 1:
        raise ValueError("a single number has no rows to pad; give an array [N, ...]")
    missing = -array.shape[0] % multiple
    return jnp.pad(array, ((0, missing), *[(0, 0)] * (array.ndim - 1))) if missing else array
