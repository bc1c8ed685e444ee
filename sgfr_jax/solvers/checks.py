"""What every coder demands of its input, said while tracing."""

import jax
import jax.numpy as jnp
import numpy as np

from sgfr_jax import types


def targets_and_atoms(targets: jax.Array, bank: types.Bank) -> tuple[jax.Array, jax.Array]:
    """Targets `[N, D]` and atoms `[M, D]` in their common type, float32 at least.

    Raises:
      ValueError: if shapes do not fit, the bank is empty, or the numbers are not floating.
    """
    targets, atoms = jnp.asarray(targets), jnp.asarray(bank.atoms)
    if targets.ndim != 2 or atoms.ndim != 2 or targets.shape[1] != atoms.shape[1]:
        raise ValueError(
            f"targets must be [N, D] with the atoms' D, got targets {targets.shape}"
            f" and atoms {atoms.shape}"
        )
    if atoms.shape[0] == 0:
        raise ValueError(f"the bank is empty: atoms {atoms.shape}; it needs one atom at least")
    if bank.weights.shape != atoms.shape[:1]:
        raise ValueError(
            f"a bank has one weight for every atom, got weights {bank.weights.shape}"
            f" and atoms {atoms.shape}"
        )
    for what, array in (("targets", targets), ("atoms", atoms)):
        if not jnp.issubdtype(array.dtype, jnp.floating):
            raise ValueError(
                f"{what} {array.shape} are {array.dtype}; features must be floating:"
                " convert them, for instance with .astype(jnp.float32)"
            )
    dtype = jnp.promote_types(jnp.promote_types(targets.dtype, atoms.dtype), jnp.float32)
    return targets.astype(dtype), atoms.astype(dtype)


def real_atoms(atoms: jax.Array, bank: types.Bank) -> jax.Array:
    """The atoms with padding zeroed, which then takes no part in a code over the whole bank."""
    return jnp.where(bank.weights[:, None] > 0, atoms, 0)


def number_of_atoms(name: str, value: int, bank: types.Bank) -> None:
    """Raises ValueError unless a code over this bank can use `value` atoms."""
    num_atoms = bank.atoms.shape[0]
    if not 1 <= value <= num_atoms:
        raise ValueError(
            f"{name}={value}, but the bank has {num_atoms} atoms;"
            f" use 1 to {num_atoms}, or a larger bank"
        )


def positive(remedy: str, **values: float | jax.Array) -> None:
    """Raises ValueError for a value that is known and not positive, or infinite."""
    for name, value in values.items():
        if not all(0 < known < np.inf for known in _known(value)):
            raise ValueError(f"{name}={value}; it must be positive and finite, {remedy}")


def not_negative(remedy: str, **values: float | jax.Array) -> None:
    """Raises ValueError for a value that is known and negative, or infinite."""
    for name, value in values.items():
        if not all(0 <= known < np.inf for known in _known(value)):
            raise ValueError(f"{name}={value}; it must not be negative or infinite, {remedy}")


def _known(value: float | jax.Array) -> list[float]:
    """The value, if it can be known while tracing: comparing JAX's own arrays is traced too."""
    return [] if isinstance(value, jax.core.Tracer) else [float(np.asarray(value))]
