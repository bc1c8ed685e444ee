"""A dictionary learned by gradient: atoms that need not be patches."""

import jax
import jax.numpy as jnp
import optax

from sgfr_jax import loops, reconstruction, self_expression, types
from sgfr_jax.subspaces import bases


def dictionary(
    key: jax.Array,
    points: jax.Array,
    weights: jax.Array,
    *,
    num_atoms: int,
    code: self_expression.MakeCode,
    num_steps: int = 1000,
    batch_size: int = 256,
    learning_rate: float = 3e-3,
) -> types.Bank:
    """Unit-norm atoms that the codes of nominal patches leave little residual with.

    Lowers `mean_n |x_n - A^T c(x_n, A)|^2` by Adam on minibatches, with a cosine schedule down to
    zero; atoms are scaled back to unit norm after every step. Codes are held fixed for the
    gradient, which is exact where the code minimises the residual under a penalty that does not
    depend on the atoms (Danskin; Mairal et al. 2010), and a good direction otherwise.

    Args:
      key: consumed by the choice of the first atoms, which are patches, and of the minibatches.
      points: `[N, D]`.
      weights: `[N]`; 0 for padding, which is never drawn.
      num_atoms: `M`, 1 to `N`.
      code: the coder `(targets, bank) -> Code` that the atoms will serve, such as
        `functools.partial(solvers.omp, sparsity=5)`.
      num_steps: how many minibatches.
      batch_size: of how many patches, drawn with replacement.
      learning_rate: of the first step. Entries of an atom are of the order `1 / sqrt(D)`.

    Returns:
      A `Bank` of `M` atoms with indices -1: they are no patches, so none is left out when nominal
      patches are coded. Atoms beyond the number of patches that are not zero are padding.

    Raises:
      ValueError: if shapes or dtypes do not fit, a number is out of range, or `code` raises.
    """
    points, weights = bases.check(points, weights, 1)
    num_points = points.shape[0]
    if not 1 <= num_atoms <= num_points:
        raise ValueError(f"num_atoms={num_atoms} of {num_points} points; use 1 to {num_points}")
    if num_steps < 0 or batch_size < 1 or not learning_rate > 0:
        raise ValueError(
            f"num_steps={num_steps} must not be negative, batch_size={batch_size} and"
            f" learning_rate={learning_rate} must be positive, such as 1000, 256 and 3e-3"
        )
    start_key, batch_key = jax.random.split(key)
    first = _first_atoms(start_key, points, weights, num_atoms)
    # Those that can be drawn come first.
    drawable = jnp.argsort(weights <= 0)
    num_drawable = jnp.sum(weights > 0)
    optimizer = optax.adam(optax.cosine_decay_schedule(learning_rate, max(num_steps, 1)))

    def loss(atoms: jax.Array, batch: jax.Array) -> jax.Array:
        found = jax.lax.stop_gradient(code(batch, first._replace(atoms=atoms)))
        return jnp.mean(jnp.sum(reconstruction.residual(batch, atoms, found) ** 2, axis=-1))

    def step(state, key):
        atoms, moments = state
        draws = jax.random.randint(key, (batch_size,), 0, jnp.maximum(num_drawable, 1))
        slopes = jax.grad(loss)(atoms, points[drawable[draws]])
        with jax.numpy_dtype_promotion("standard"):  # optax mixes them
            updates, moments = optimizer.update(slopes, moments)
        return (_unit(optax.apply_updates(atoms, updates), first.weights), moments), None

    state = (first.atoms, optimizer.init(first.atoms))
    state = loops.begin(state, batch_key, points, first.weights)
    (atoms, _), _ = jax.lax.scan(step, state, jax.random.split(batch_key, num_steps))
    return first._replace(atoms=atoms)


def _first_atoms(key, points, weights, num_atoms) -> types.Bank:
    """Random patches, scaled to unit norm."""
    usable = (weights > 0) & jnp.any(points != 0, axis=-1)
    order = jnp.where(usable, jax.random.uniform(key, usable.shape), jnp.inf)
    chosen = jnp.argsort(order)[:num_atoms]
    real = usable[chosen].astype(points.dtype)
    return types.Bank(_unit(points[chosen], real), real, jnp.full(num_atoms, -1, jnp.int32))


def _unit(atoms, weights):
    """Rows of unit norm; zero where the weight is."""
    norms = jnp.linalg.norm(atoms, axis=-1, keepdims=True)
    return jnp.where(weights[:, None] > 0, atoms / jnp.where(norms > 0, norms, 1), 0)
