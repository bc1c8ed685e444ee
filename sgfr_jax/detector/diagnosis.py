"""What `sgfr_jax.diagnostics` says of the banks of a fitted detector.

They are asked about a few nominal patches, each coded by the run's own solver without the atoms
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
from sgfr_jax.commands.flags.config import Config
from sgfr_jax.detector import (
    choices,
    detectors,
    loading,
    models,
    nulls,
    sampling,
)

# Squares of training images that are looked at, and patches of each.
NUM_SQUARES, NUM_PATCHES = 16, 64
# Patches whose errors are found at a time: solvers over the whole bank hold a copy of it for each.
_CHUNK = 16
_QUANTILES = {"median": 0.5, "p95": 0.95, "max": 1.0}
# `(bank, patches [n, D], weights [n]) -> values by the name of the diagnostic`, `[n]` or `[]`.
Probe = Callable[[types.Bank, np.ndarray, np.ndarray], dict[str, np.ndarray]]


def diagnose(
    config: Config,
    detector: detectors.Detector,
    fitted: detectors.Fitted,
    category: loading.Checked,
    bar: Callable,
) -> tuple[dict[str, dict[str, Any]], str]:
    """The diagnostics of every bank of the run's own solver, by the levels and size it sees.

    Args:
      config: of the run; its seed draws the patches.
      detector: that fitted.
      fitted: on this category.
      category: of which only the training images are looked at.
      bar: as `progress.bar`.

    Returns:
      What JSON takes, the same for the same seed, and a note on it. Numbers that are not finite,
      as of a bank that came from one image alone, are None.

    Raises:
      DatasetError: if features are not finite.
    """
    rng = np.random.default_rng(config.seed)
    train = loading.views(category.train)
    chosen = np.sort(rng.permutation(len(train.owners))[:NUM_SQUARES])
    seen = train.take(chosen)
    held_out = config.subspaces == "implicit" and len(category.train.examples) > 1
    givers = seen.owners if held_out else np.full(len(chosen), nulls.NO_IMAGE)
    batches = [jax.tree.leaves(batch) for batch in detector.batches(seen.split)]
    # On one device, wherever banks lie to score.
    banks = jax.device_get(nulls.banks(fitted.states[config.solver]))
    probe, found = make_probe(config), {}
    with bar(f"{category.name}: diagnosing", len(banks), "banks") as report:
        for (size, levels, grid), bank, origin, *parts in zip(
            models.layout(config), banks, fitted.origins, *batches, strict=True
        ):
            cells, weights = _pick(rng, sampling.patch_weights(seen, grid))
            patches = np.take_along_axis(np.concatenate(parts), cells[..., None], axis=1)
            values = [
                probe(nulls.without(bank, [origin], giver), *of_square)
                for giver, *of_square in zip(givers, patches, weights, strict=True)
            ]
            found[f"{levels}@{size}"] = {
                "patches": int(weights.sum()),
                "held_out": held_out,
                **_summaries(values, weights > 0),
            }
            report(1)
    how = "coded without the atoms of their images" if held_out else "which the banks have seen"
    num = max(of_bank["patches"] for of_bank in found.values())
    return found, f"diagnostics (results.json) of up to {num} nominal patches for each bank, {how}"


@functools.lru_cache(1)  # categories have banks of the same shapes
def make_probe(config: Config) -> Probe:
    """What asks about some patches all that makes sense for the run's solver and its banks."""
    code = choices.make_coder(config.solver, config)
    # Of one nearest atom there is nothing to say, and other solvers factorise other matrices.
    several_neighbors = choices.SOLVERS[config.solver].atoms == "num_neighbors"

    @jax.jit
    def of_codes(bank: types.Bank, patches: jax.Array, weights: jax.Array):
        found = code(patches, bank)
        values = {
            "atoms_used": diagnostics.atoms_used(found),
            "effective_atoms": diagnostics.effective_atoms(found),
        }
        if config.subspaces == "implicit":  # learned atoms are not where patches are
            values["covering_radius"] = diagnostics.covering_radius(patches, weights, bank)
        if config.subspaces in choices.CLUSTERING_LEARNERS:
            each = config.subspace_rank + 1  # as `types.subspace_bank` lays them
            labels = jnp.arange(len(bank.atoms)) // each
            values["share_inside_subspace"] = diagnostics.share_inside_subspace(
                found, labels, num_subspaces=len(bank.atoms) // each
            )
        return found, values

    error = partial(
        diagnostics.self_representation_error, code=code, held_in=False, chunk_size=_CHUNK
    )
    compiled_error, conditioning = jax.jit(error), jax.jit(diagnostics.conditioning)

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
