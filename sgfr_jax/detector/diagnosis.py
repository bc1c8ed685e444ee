"""What `sgfr_jax.diagnostics` says of the banks of a fitted detector.

They are asked about a few nominal patches, each coded by the method's own solver without the atoms
that its image gave: a bank says little of the next image by patches that it holds.
"""

import functools
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sgfr_jax import diagnostics, types
from sgfr_jax.detector import alternatives, held_out, sampling, splits
from sgfr_jax.detector import state as states
from sgfr_jax.detector.method import Method, Stage
from sgfr_jax.detector.splits import Split
from sgfr_jax.detector.stages import Stages
from sgfr_jax.detector.state import Look

# Squares of training images that are looked at, and patches of each.
NUM_SQUARES, NUM_PATCHES = 16, 64
# Patches whose errors are found at a time: solvers over the whole bank hold a copy of it for each.
_CHUNK = 16
_QUANTILES = {"median": 0.5, "p95": 0.95, "max": 1.0}
# `(bank, patches [n, D], weights [n]) -> values by the name of the diagnostic`, `[n]` or `[]`.
Probe = Callable[[types.Bank, np.ndarray, np.ndarray], dict[str, np.ndarray]]


def diagnose(
    stages: Stages, look: Look, train: Split, seed: int, name: str, bar: Callable
) -> tuple[dict[str, dict[str, Any]], str]:
    """The diagnostics of every bank of the method's own solver, by the levels and size it sees.

    Args:
      stages: that fitted.
      look: what was fitted.
      train: the training images, as this look sees them.
      seed: of the draw of patches.
      name: of the category.
      bar: as `Services.progress`.

    Returns:
      What JSON takes, the same for the same seed, and a note on it. Numbers that are not finite,
      as of a bank that came from one image alone, are None.

    Raises:
      DatasetError: if features are not finite.
    """
    method, rng = stages.method, np.random.default_rng(seed)
    views = splits.views(train)
    chosen = np.sort(rng.permutation(len(views.owners))[:NUM_SQUARES])
    seen = views.take(chosen)
    is_held_out = method.subspaces == "implicit" and len(train.examples) > 1
    givers = seen.owners if is_held_out else np.full(len(chosen), held_out.NO_IMAGE)
    batches = list(stages.batches(seen.split))
    # On one device, wherever banks lie to score.
    look = jax.device_get(look)
    probe, found = make_probe(_kept(method), stages.services.jit), {}
    with bar(f"{name}: diagnosing", len(look.banks), "banks") as report:
        for number, stream in enumerate(stages.streams):
            alone = look._replace(
                banks=look.banks[number : number + 1], origins=look.origins[number : number + 1]
            )
            cells, weights = _pick(rng, sampling.patch_weights(seen, stream.grid))
            features = np.concatenate([batch[number] for batch in batches])
            patches = np.take_along_axis(features, cells[..., None], axis=1)
            values = [
                probe(states.without(alone, giver).banks[0], *of_square)
                for giver, *of_square in zip(givers, patches, weights, strict=True)
            ]
            found[stream.name] = {
                "patches": int(weights.sum()),
                "held_out": is_held_out,
                **_summaries(values, weights > 0),
            }
            report(1)
    how = "coded without the atoms of their images" if is_held_out else "which the banks have seen"
    num = max(of_bank["patches"] for of_bank in found.values())
    return found, f"diagnostics (results.json) of up to {num} nominal patches for each bank, {how}"


def _kept(method: Method) -> Method:
    """What the probes follow from."""
    return method.only(Stage.BANK, Stage.CODE)


@functools.lru_cache(1)  # categories have banks of the same shapes
def make_probe(method: Method, jit: Callable) -> Probe:
    """What asks about some patches all that makes sense for the method's solver and its banks."""
    code = alternatives.make_coder(method.solver, method)
    # Of one nearest atom there is nothing to say, and other solvers factorise other matrices.
    several_neighbors = alternatives.SOLVERS[method.solver].atoms == "num_neighbors"

    @jit
    def of_codes(bank: types.Bank, patches: jax.Array, weights: jax.Array):
        found = code(patches, bank)
        values = {
            "atoms_used": diagnostics.atoms_used(found),
            "effective_atoms": diagnostics.effective_atoms(found),
        }
        if method.subspaces == "implicit":  # learned atoms are not where patches are
            values["covering_radius"] = diagnostics.covering_radius(patches, weights, bank)
        if method.subspaces in alternatives.CLUSTERING_LEARNERS:
            each = method.subspace_rank + 1  # as `types.subspace_bank` lays them
            labels = jnp.arange(len(bank.atoms)) // each
            values["share_inside_subspace"] = diagnostics.share_inside_subspace(
                found, labels, num_subspaces=len(bank.atoms) // each
            )
        return found, values

    error = partial(
        diagnostics.self_representation_error, code=code, held_in=False, chunk_size=_CHUNK
    )
    compiled_error, conditioning = jit(error), jit(diagnostics.conditioning)

    def probe(bank: types.Bank, patches: np.ndarray, weights: np.ndarray):
        # One after the other, each in a program of its own: what factorises several matrices at
        # once can lock XLA's CPU threads against each other.
        found, values = jax.block_until_ready(of_codes(bank, patches, weights))
        values["self_representation_error"] = jax.block_until_ready(
            compiled_error(patches, weights, bank)
        )
        if several_neighbors:
            values["conditioning"] = conditioning(patches, bank, found)
        return jax.device_get(values)

    return probe


def _pick(rng: np.random.Generator, shown: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Some patches of every square, and 0 for one that shows no image, `[V, n]` each.

    Of `shown`, `[V, P]`, those that are 0 come last.
    """
    cells = sampling.pick(rng.random(shown.shape), shown, NUM_PATCHES)
    return cells, np.take_along_axis(shown, cells, axis=1)


def _summaries(values: list[dict[str, np.ndarray]], shown: np.ndarray) -> dict[str, Any]:
    """Of every diagnostic the mean and some quantiles over patches, or the largest of `[]`."""
    found = {}
    for name in sorted(values[0]):
        every = np.stack([of_square[name] for of_square in values]).astype(np.float64)
        if every.ndim == 1:
            found[name] = _finite(every.max())
            continue
        own = every[shown]
        # No quantile between two values: they may be infinite.
        quantiles = np.quantile(own, list(_QUANTILES.values()), method="higher")
        found[name] = {"mean": _finite(own.mean())} | {
            of: _finite(value) for of, value in zip(_QUANTILES, quantiles, strict=True)
        }
    return found


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
