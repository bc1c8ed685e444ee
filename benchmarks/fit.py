"""Choosing a bank from patches, and fitting from images to a bank.

- sampling: greedy k-center on the patches of real textures through EfficientNet-Lite0. By default
  761 images as in MTD: 195k x 344 (grid 16) at 1% and 10%, and 779k x 152 (grid 32) at 1%. Against
  the plain greedy loop in NumPy and against anomalib's sampler, both of which do `--steps` of their
  steps, all alike, and are extrapolated to the whole. Of ours, `values` say whether it chose what
  the plain loop chose, and both covering radii.
- whole: uint8 images in memory to a fitted state with ResNet-18, against anomalib's Patchcore
  (the same levels, grid, size of bank) and Padim (its own levels and features).

    taskset -c 0 python -m benchmarks.fit --peers=.venv-peers/bin/python
"""

import argparse
import math
import tempfile
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import sgfr_jax as sgfr
from benchmarks import backbone as networks
from benchmarks import machine, materials, report, timing, workers
from sgfr_jax import backbones, patches

_STAGES = ("sampling", "whole")
_SIZE = 256
_LOOP = "plain loop, NumPy"
# What is sampled: levels of EfficientNet-Lite0, patches per side, share kept.
_PROBLEMS = {
    "grid16_1": (("block4", "block10", "block14"), 16, 0.01),
    "grid16_10": (("block4", "block10", "block14"), 16, 0.1),
    "grid32_1": (("block4", "block10"), 32, 0.01),
}
_BATCH = 16


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of this benchmark."""
    parser.add_argument("--stages", nargs="+", default=_STAGES, choices=_STAGES)
    parser.add_argument("--problems", nargs="+", default=tuple(_PROBLEMS), choices=_PROBLEMS)
    parser.add_argument("--images", type=int, default=761, help="of sampling")
    parser.add_argument("--steps", type=int, default=20, help="of the peers' loops")
    parser.add_argument("--check", type=int, default=500,
                        help="choices that the plain loop makes once, for comparison")  # fmt: skip
    parser.add_argument("--fit_images", type=int, default=32, help="of whole")
    parser.add_argument("--ratio", type=float, default=0.01, help="share of patches kept, of whole")


def measure(options: argparse.Namespace, peers: workers.Peers) -> list[report.Row]:
    """Measures the stages asked for."""
    stages = {"sampling": _sampling, "whole": _whole}
    return [row for name in options.stages for row in stages[name](options, peers)]


def _sampling(options, peers):
    images, found = materials.photographs(options.images, _SIZE), []
    for name in options.problems:
        layers, grid, ratio = _PROBLEMS[name]
        points = materials.features(images, layers, grid)
        num_atoms = max(1, round(ratio * len(points)))
        steps = min(options.steps, num_atoms)
        first, ours = _k_center(points, num_atoms)
        contenders = {
            report.OURS: timing.contender(ours),
            _LOOP: timing.contender(partial(_extrapolated_loop, points, first, num_atoms, steps)),
            **peers.contender(
                "anomalib",
                "patchcore:k_center",
                points=points,
                num_atoms=num_atoms,
                num_steps=steps,
            ),
        }
        timed = timing.alternate(contenders, repeats=options.repeats)
        steps_note = f"extrapolated from {steps} steps"
        found += report.rows(
            f"k-center, {len(points):,} x {points.shape[1]}, {num_atoms:,} atoms",
            timed,
            work=k_center_work(*points.shape, num_atoms),
            notes={_LOOP: steps_note, "anomalib": f"{steps_note}, in a random projection"},
            values={
                report.OURS: _agreement(points, timed[report.OURS].value, options.check),
                **{who: timed[who].value for who in timed if who != report.OURS},
            },
        )
        peers.forget()
    return found


def k_center_work(num_points: int, width: int, num_atoms: int) -> machine.Work:
    """The distance of every point to every choice; the points read once."""
    return machine.Work(2.0 * num_points * width * num_atoms, 4.0 * num_points * width)


def greedy_loop(points: np.ndarray, first: int, steps: int) -> tuple[np.ndarray, float]:
    """The plain farthest-first traversal, a pass over all points for every choice.

    Args:
      points: `[N, D]`.
      first: the first choice.
      steps: how many choices, the first among them.

    Returns:
      The choices `[steps]`, and the covering radius that they leave.
    """
    norms = np.einsum("nd,nd->n", points, points)
    nearest, chosen = np.full(len(points), np.inf, np.float32), np.empty(steps, np.int64)
    best = first
    for i in range(steps):
        chosen[i] = best
        distances = norms + norms[best] - 2 * (points @ points[best])
        np.minimum(nearest, distances, out=nearest)
        best = int(np.argmax(nearest))
    return chosen, math.sqrt(max(float(nearest[best]), 0))


def _extrapolated_loop(points, first, num_atoms, steps):
    start = time.perf_counter()
    greedy_loop(points, first, steps)
    step = (time.perf_counter() - start) / steps
    return timing.Extrapolated(step * num_atoms, {"seconds_per_step": step})


def _k_center(points, num_atoms):
    """Our sampler, compiled, and its first choice, which is random."""
    key, weights = jax.random.key(0), jnp.ones(len(points))
    points = jnp.asarray(points)
    sample = jax.jit(sgfr.greedy_k_center, static_argnums=3)
    first = int(sgfr.k_center_start(key, points, weights, 1).indices[0])
    return first, lambda: jax.block_until_ready(sample(key, points, weights, num_atoms))


def _agreement(points, selection, check):
    """Ours against the plain loop, over the first choices."""
    indices = np.asarray(selection.indices)[:check]
    chosen, radius = greedy_loop(points, int(indices[0]), len(indices))
    ours = points[indices]
    norms = np.einsum("nd,nd->n", points, points)
    nearest = np.full(len(points), np.inf, np.float32)
    for start in range(0, len(ours), 128):
        block = ours[start : start + 128]
        halves = np.einsum("nd,nd->n", block, block) / 2 - points @ block.T
        np.minimum(nearest, norms + 2 * halves.min(axis=1), out=nearest)
    return {
        "choices_compared": len(indices),
        "share_chosen_by_both": float(np.isin(indices, chosen).mean()),
        "radius": math.sqrt(max(float(nearest.max()), 0)),
        "radius_of_plain_loop": radius,
    }


def _whole(options, peers):
    images = materials.photographs(options.fit_images, _SIZE)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "resnet18.safetensors")
        materials.write_weights("resnet18", path)
        backbone = backbones.load("resnet18", path)
        grid = _SIZE // min(backbone.architecture.strides[level] for level in backbone.levels)
        num_atoms = max(1, int(options.ratio * len(images) * grid**2))
        given = {"architecture": "resnet18", "weights": str(path), "images": images}
        given["ratio"] = options.ratio
        contenders = {
            report.OURS: timing.contender(_fitter(backbone, grid, images, num_atoms)),
            **peers.contender(
                "anomalib Patchcore",
                "patchcore:fitter",
                kind="patchcore",
                layers=["layer2", "layer3"],
                **given,
            ),
            **peers.contender(
                "anomalib Padim",
                "patchcore:fitter",
                kind="padim",
                layers=["layer1", "layer2", "layer3"],
                **given,
            ),
        }
        timed = timing.alternate(contenders, repeats=options.repeats)
    width = sum(backbone.architecture.widths[level] for level in backbone.levels)
    network = networks.work(backbone.architecture, backbone.levels, _SIZE, _BATCH)
    sampling = k_center_work(len(images) * grid**2, width, num_atoms)
    work = machine.Work(
        network.flops * len(images) + sampling.flops, network.bytes * len(images) + sampling.bytes
    )
    return report.rows(
        f"{len(images)} images to {num_atoms} atoms, resnet18",
        timed,
        work=work,
        notes={"anomalib Padim": "a Gaussian per cell, 100 features, grid 64"},
        values={who: {"shape": timed[who].value} for who in timed},
    )


def _fitter(backbone, grid, images, num_atoms):
    """Images to a bank, a batch at a time, all that is compiled being compiled before."""

    @jax.jit
    def embed(state, batch):
        merged = patches.unit_norm(patches.merge_levels(backbone.embed(state, batch), (grid, grid)))
        return merged.reshape(-1, merged.shape[-1])

    sample = partial(sgfr.fit, sample=sgfr.greedy_k_center, num_atoms=num_atoms)
    compiled = jax.jit(sample)

    def fit():
        batches = (images[start : start + _BATCH] for start in range(0, len(images), _BATCH))
        points = jnp.concatenate([embed(backbone.state, batch) for batch in batches])
        bank = compiled(jax.random.key(0), points, jnp.ones(len(points)))
        return list(jax.block_until_ready(bank).atoms.shape)

    return fit


if __name__ == "__main__":
    report.run(measure, __doc__, add_flags=add_flags, repeats=3)
