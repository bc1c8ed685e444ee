"""What coders and others demand of their input, said while tracing."""

import jax
import jax.numpy as jnp
import numpy as np

from sgfr_jax import linalg, types


def targets_and_atoms(targets: jax.Array, bank: types.Bank) -> tuple[jax.Array, jax.Array]:
    """Targets `[N, D]` and atoms `[M, D]` in their common type, float32 at least.

    Raises:
      ValueError: if shapes do not fit, the bank is empty, or the numbers are not floating.
    """
    targets, atoms = jnp.asarray(targets), jnp.asarray(bank.atoms)
    if targets.ndim != 2 or atoms.ndim != 2 or targets.shape[1] != atoms.shape[1]:
        raise ValueError(
            f"targets must be [N, D] with the atoms' D, got targets {targets.shape}"
            f" and atoms {atoms.shape}; take both from the same levels of one network"
        )
    if atoms.shape[0] == 0:
        raise ValueError(f"the bank is empty: atoms {atoms.shape}; it needs one atom at least")
    if bank.weights.shape != atoms.shape[:1]:
        raise ValueError(
            f"a bank has one weight for every atom, got weights {bank.weights.shape}"
            f" and atoms {atoms.shape}; use ones, and 0 for padding"
        )
    floating(targets=targets, atoms=atoms)
    return tuple(linalg.in_one_precision(targets, atoms))


def floating(**arrays: jax.Array) -> None:
    """Raises ValueError for an array of integers, booleans or complex numbers."""
    for what, array in arrays.items():
        if not jnp.issubdtype(jnp.asarray(array).dtype, jnp.floating):
            raise ValueError(
                f"{what} {array.shape} are {array.dtype}; features must be floating:"
                " convert them, for instance with .astype(jnp.float32)"
            )


def squarable(points: jax.Array, counts: jax.Array) -> jax.Array:
    """Whether squared distances between the points that count neither vanish nor overflow, `[]`.

    Args:
      points: `[N, D]` in float32 at least.
      counts: `[N]` bool, finite points.

    Raises:
      ValueError: if that is known, as outside `jax.jit`, and they do.
    """
    largest = jnp.max(jnp.where(counts[:, None], jnp.abs(points), 0), initial=0)
    reach = float(jnp.finfo(points.dtype).max) ** (1 / 3)  # 7e12 in float32
    fits = (largest == 0) | ((largest >= 1 / reach) & (largest <= reach))
    if not isinstance(fits, jax.core.Tracer) and not fits:
        raise ValueError(
            f"the largest entry of the points is {float(largest):.3g}, whose squares"
            f" {points.dtype} cannot hold: divide them by it, or let it lie within 1e-12 and 1e12"
        )
    return fits


def support(target: jax.Array, support: jax.Array, valid: jax.Array) -> None:
    """Raises ValueError unless these are `[D]`, `[K, D]` and `[K]`, and features floating."""
    if target.ndim != 1 or support.shape[1:] != target.shape or valid.shape != support.shape[:1]:
        raise ValueError(
            "a penalty takes one target [D], its support [K, D] and valid [K], got"
            f" {target.shape}, {support.shape} and {valid.shape}; map it over targets with jax.vmap"
        )
    floating(target=target, support=support)


def same_points(points: jax.Array, selection: types.Selection) -> None:
    """Raises ValueError unless the selection may have been made on these points."""
    if points.ndim != 2 or selection.distances.shape != points.shape[:1]:
        raise ValueError(
            "points must be the [N, D] that the selection was started on, got points"
            f" {points.shape} and distances {selection.distances.shape}"
        )
    floating(points=points)


def real_atoms(atoms: jax.Array, bank: types.Bank) -> jax.Array:
    """The atoms with padding zeroed, which then takes no part in a code over the whole bank."""
    return types.clear_padding(bank._replace(atoms=atoms)).atoms


def number_of_atoms(name: str, value: int, bank: types.Bank) -> None:
    """Raises ValueError unless a code over this bank can use `value` atoms."""
    num_atoms = bank.atoms.shape[0]
    if not 1 <= value <= num_atoms:
        raise ValueError(
            f"{name}={value}, but the bank has {num_atoms} atoms;"
            f" use 1 to {num_atoms}, or a larger bank than atoms {bank.atoms.shape}"
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


def share(**values: float | jax.Array) -> None:
    """Raises ValueError for a value that is known and not in [0, 1]."""
    for name, value in values.items():
        if not all(0 <= known <= 1 for known in _known(value)):
            raise ValueError(f"{name}={value}; it must be in [0, 1]")


def _known(value: float | jax.Array) -> list[float]:
    """The value, if it can be known while tracing: comparing JAX's own arrays is traced too."""
    return [] if isinstance(value, jax.core.Tracer) else [float(np.asarray(value))]
