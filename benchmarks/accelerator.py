r"""Every stage on the device that JAX has, in one call: what it reaches, and what bounds it.

    python -m benchmarks.accelerator --json=accelerator.json
    python -m benchmarks.accelerator --small            # a CPU's size; also what the test runs

Needs no peers and no network: the weights are EfficientNet-Lite0's, and made ones for the Wide
ResNet, whose speed does not depend on them. Times are medians of calls that follow each other
without waiting. No call may move anything between host and device, which is enforced, nor its
program call the host, which is looked for.

- rates: a matrix product in float32, TF32 and bfloat16, and a pass over a large array.
- backbone: images on the device to their levels, by batch.
- k_center: the exact sampler on patches of real textures.
- coding: patches to residual norms, by each search, with the recall of its neighbours and the error
  of the residuals against the exact search; and the parts of a search by themselves. On a TPU this
  is where the recall of `approx_max_k` is measured; elsewhere it is exact.
- maps: scores to maps and image scores.
- images: all of it, uint8 images to maps, by batch and search; beside it how fast the host decodes.
- metrics: pixel metrics compiled for the device, against the host's.

A stage's floor is that of its arithmetic, in the precision in which it is done, or of its traffic,
whichever is longer (`bound`), at the measured rates; `reached` is floor over time. The last column
has the kernel that takes most of the time, and its share.
"""

import argparse
import json
import os
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

import sgfr_jax as sgfr
from benchmarks import backbone as networks
from benchmarks import device, device_metrics, fit, machine, materials, metrics, report, timing
from sgfr_jax import backbones, patches, search, types
from sgfr_jax import metrics as host_metrics
from sgfr_jax.datasets import images as reading

_LAYERS = ("block4", "block10", "block14")  # of EfficientNet-Lite0: D = 344
_GRID, _SIZE, _SIGMA, _NEIGHBORS, _SPARE, _RIDGE = 16, 256, 4.0, 10, 6, 1e-3
_FLOAT = 4  # bytes
SEARCHES = {
    "exact": search.exact,
    "reduced": partial(search.reduced, spare=_SPARE),
    "approximate": partial(search.approximate, spare=_SPARE),
}


class Network(NamedTuple):
    """A network, the images it gets, and the bank that is searched for their patches."""

    name: str
    size: int
    num_atoms: int


class Problem(NamedTuple):
    """How large everything is."""

    product: int  # side of the matrices
    megabytes: int
    networks: tuple[Network, ...]
    batches: tuple[int, ...]
    sampled_images: int
    ratios: tuple[float, ...]
    targets: int  # coded at a time
    banks: tuple[tuple[int, int], ...]  # atoms and features of each
    chunk: int | None  # as of `sgfr.score`
    decoded: int  # images
    maps: int  # measured by the metrics


FULL = Problem(
    product=8192,
    megabytes=2048,
    networks=(
        Network("efficientnet_lite0", 256, 1950),
        Network("wide_resnet50_2", 224, 16384),
    ),
    batches=(1, 16, 64),
    sampled_images=761,
    ratios=(0.01, 0.1),
    targets=8192,
    banks=((1950, 344), (16384, 1536)),
    chunk=8192,
    decoded=256,
    maps=583,
)
SMALL = Problem(
    product=512,
    megabytes=16,
    networks=(Network("efficientnet_lite0", 64, 40),),
    batches=(2,),
    sampled_images=2,
    ratios=(0.1,),
    targets=64,
    banks=((300, 400),),
    chunk=256,
    decoded=4,
    maps=4,
)


class Row(NamedTuple):
    """One way of doing one stage."""

    stage: str
    way: str
    seconds: list[float]  # of every repeat, per unit
    work: device.Work | None = None  # per unit
    kernels: dict[str, float] | None = None  # shares of the time
    values: dict[str, Any] | None = None


def rows(problem: Problem, repeats: int, stages: Sequence[str]) -> Iterator[Row]:
    """Measures stage after stage."""
    timed = partial(_timed, repeats=repeats)
    for name in stages:
        yield from STAGES[name](problem, timed)


def _timed(
    contenders: Mapping[str, timing.Contender], *, repeats: int
) -> Iterator[tuple[str, timing.Timed, dict[str, float]]]:
    """Measures contenders in turn; names, times and kernels."""
    number = {name: device.calls(sample) for name, sample in contenders.items()}
    fixed = {
        name: lambda _, sample=sample, name=name: sample(number[name])
        for name, sample in contenders.items()
    }
    for name, found in timing.alternate(fixed, repeats=repeats, warm=False).items():
        yield name, found, device.kernels(contenders[name])


def _backbone(problem, timed):
    for network in problem.networks:
        backbone, _ = _load(network)
        for batch in problem.batches:
            images = materials.photographs(batch, network.size)
            sample = device.contender(backbone.embed, backbone.state, images)
            work = networks.work(backbone.architecture, backbone.levels, network.size, batch)
            for _, found, kernels in timed({"": sample}):
                yield Row(
                    f"{network.name}, {network.size} px, batch {batch}, per image",
                    "float32",
                    [seconds / batch for seconds in found.seconds],
                    device.Work(float32=work.flops, bytes=work.bytes),
                    kernels,
                )


def _k_center(problem, timed):
    images = materials.photographs(problem.sampled_images, _SIZE)
    points = materials.features(images, _LAYERS, _GRID)
    key, weights = jax.random.key(0), np.ones(len(points), np.float32)
    for ratio in problem.ratios:
        num_atoms = round(ratio * len(points))
        sample = device.contender(
            lambda key, points, weights, num=num_atoms: sgfr.greedy_k_center(
                key, points, weights, num
            ),
            key,
            points,
            weights,
        )
        work = fit.k_center_work(*points.shape, num_atoms)
        for _, found, kernels in timed({"": sample}):
            radius = float(jnp.sqrt(jnp.max(found.value.distances)))
            yield Row(
                f"k-center, {len(points):,} x {points.shape[1]}, {num_atoms:,} atoms",
                "float32",
                found.seconds,
                device.Work(float32=work.flops, bytes=work.bytes),
                kernels,
                {"radius": radius},
            )


def _coding(problem, timed):
    most = max(num_atoms for num_atoms, _ in problem.banks) + problem.targets
    images = materials.photographs(-(-most // _GRID**2), _SIZE)
    points = materials.features(images, _LAYERS, _GRID)
    order = np.random.default_rng(0).permutation(len(points))
    for num_atoms, width in problem.banks:
        # Distances, and so neighbours and residuals, are those of real patches at any width.
        wide = _widened(points, width)
        targets = wide[order[: problem.targets]]
        bank = _bank(wide[order[problem.targets :][:num_atoms]])
        yield from _parts(targets, bank, timed)
        yield from _codings(targets, bank, timed)


def _parts(targets, bank, timed):
    """A search's two parts: the similarities of all pairs, and the largest of each row."""
    sizes = f"{len(targets):,} x {targets.shape[1]}, bank {len(bank.atoms):,}"
    pairs = len(targets) * len(bank.atoms)
    operations = 2.0 * pairs * targets.shape[1]
    traffic = _FLOAT * (pairs + targets.size + bank.atoms.size)
    reduced = {"targets": targets, "atoms": bank.atoms}
    reduced = {name: jnp.asarray(array, jnp.bfloat16) for name, array in reduced.items()}

    def product(precision):
        def similarities(targets, atoms):
            return jnp.matmul(
                targets, atoms.T, precision=precision, preferred_element_type=jnp.float32
            )

        return similarities

    full = (targets, bank.atoms)
    products = {
        "float32": device.contender(product(jax.lax.Precision.HIGHEST), *full),
        "TF32 on a GPU": device.contender(product(jax.lax.Precision.HIGH), *full),
        "bfloat16": device.contender(product(None), *reduced.values()),
    }
    for way, found, kernels in timed(products):
        halved = way == "bfloat16"
        work = device.Work(
            float32=0.0 if halved else operations,
            bfloat16=operations if halved else 0.0,
            bytes=traffic,
        )
        yield Row(f"similarities, {sizes}", way, found.seconds, work, kernels)

    similarities = jax.jit(product(None))(*reduced.values())
    largest = {
        "top_k": lambda x: jax.lax.top_k(x, _NEIGHBORS + _SPARE)[1],
        "approx_max_k": lambda x: jax.lax.approx_max_k(x, _NEIGHBORS + _SPARE)[1],
    }
    samples = {way: device.contender(choose, similarities) for way, choose in largest.items()}
    for way, found, kernels in timed(samples):
        work = device.Work(bytes=_FLOAT * pairs)
        yield Row(f"{_NEIGHBORS + _SPARE} largest, {sizes}", way, found.seconds, work, kernels)


def _codings(targets, bank, timed):
    """Patches to residual norms by each search, against the exact one."""
    neighbours = {
        way: np.asarray(jax.jit(partial(find, num_neighbors=_NEIGHBORS))(targets, *bank[:2]))
        for way, find in SEARCHES.items()
    }
    samples = {
        way: device.contender(
            partial(sgfr.score, code=_coder(find), chunk_size=None), bank, targets
        )
        for way, find in SEARCHES.items()
    }
    exact = None
    for way, found, kernels in timed(samples):
        scores = np.asarray(found.value)
        exact = scores if exact is None else exact
        errors = np.abs(scores - exact) / exact
        yield Row(
            f"coding, {len(targets):,} x {targets.shape[1]}, bank {len(bank.atoms):,}",
            way,
            found.seconds,
            coding_work(*targets.shape, len(bank.atoms), way),
            kernels,
            {
                "recall": recall(neighbours[way], neighbours["exact"]),
                "largest_relative_error": float(errors.max()),
                "mean_relative_error": float(errors.mean()),
            },
        )


def _maps(problem, timed):
    batch = max(problem.batches)
    scores = np.random.default_rng(0).random((batch, _GRID, _GRID), np.float32)
    work = device.Work(
        float32=2.0 * _SIZE * _GRID * (_GRID + _SIZE), bytes=_FLOAT * (_SIZE**2 + _GRID**2)
    )

    def draw(scores):
        maps = sgfr.anomaly_map(scores, (_SIZE, _SIZE), sigma=_SIGMA)
        return maps, sgfr.image_score(maps)

    for _, found, kernels in timed({"": device.contender(draw, scores)}):
        yield Row(
            f"map, {_GRID} to {_SIZE} px, batch {batch}, per image",
            "float32",
            [seconds / batch for seconds in found.seconds],
            work,
            kernels,
        )


def _images(problem, timed):
    for network in problem.networks:
        backbone, grid = _load(network)
        embed = partial(_embed, backbone.embed, grid)
        bank = _fitted(network, backbone, grid, embed)
        for batch in problem.batches:
            images = materials.photographs(batch, network.size, seed=1)
            samples = {
                way: device.contender(
                    _detector(embed, _coder(find), network.size, problem.chunk),
                    backbone.state,
                    bank,
                    images,
                )
                for way, find in SEARCHES.items()
            }
            layers = networks.work(backbone.architecture, backbone.levels, network.size, batch)
            for way, found, kernels in timed(samples):
                num_atoms, width = bank.atoms.shape
                coding = coding_work(batch * grid**2, width, num_atoms, way)
                yield Row(
                    f"images to maps, {network.name}, {network.size} px, bank {num_atoms:,},"
                    f" batch {batch}, per image",
                    way,
                    [seconds / batch for seconds in found.seconds],
                    device.Work(
                        float32=layers.flops + coding.float32 / batch,
                        bfloat16=coding.bfloat16 / batch,
                        bytes=layers.bytes + coding.bytes / batch,
                    ),
                    kernels,
                )
        yield _decoding(problem, network)


def _embed(apply, grid, state, images):
    return patches.unit_norm(patches.merge_levels(apply(state, images), (grid, grid)))


def _fitted(network, backbone, grid, embed):
    """A bank of the network's own patches; which they are does not change how long coding takes."""
    images = materials.photographs(-(-network.num_atoms // grid**2), network.size)
    compiled = jax.jit(embed)
    points = [np.asarray(compiled(backbone.state, image[None])) for image in images]
    return _bank(np.concatenate(points).reshape(-1, points[0].shape[-1])[: network.num_atoms])


def _decoding(problem, network):
    """How fast the host turns JPEG bytes into what the device wants, in threads."""
    encoded = materials.encode(materials.photographs(problem.decoded, 400, seed=2), "JPEG")

    def decode(part):
        return reading.read_image(np.asarray(Image.open(BytesIO(part))), network.size)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(decode, encoded))
        start = time.perf_counter()
        list(pool.map(decode, encoded))
        seconds = (time.perf_counter() - start) / len(encoded)
    stage = f"JPEG bytes of 400 px to {network.size} px, per image"
    return Row(stage, f"host, {os.cpu_count()} threads", [seconds])


def _metrics(problem, timed):
    maps, masks = metrics.made_maps(problem.maps, _SIZE)
    weights = np.zeros(maps.shape, np.float32)
    weights[masks] = host_metrics.region_weights(masks)
    given = maps.ravel(), masks.ravel(), weights.ravel()
    start = time.perf_counter()
    expected = host_metrics.evaluate(maps.max(axis=(1, 2)), masks.any(axis=(1, 2)), maps, masks)
    seconds = time.perf_counter() - start
    stage = f"pixel metrics of {maps.size / 1e6:.1f}M pixels"
    expected = {name: getattr(expected, name) for name in device_metrics.PixelMetrics._fields}
    # Scores, labels and weights read once; how much sorting must cost is not a number.
    work = device.Work(bytes=sum(array.nbytes for array in given))
    for _, found, kernels in timed({"": device.contender(device_metrics.evaluate, *given)}):
        values = {name: float(value) for name, value in found.value._asdict().items()}
        error = max(abs(values[name] - expected[name]) for name in values)
        yield Row(stage, "compiled", found.seconds, work, kernels, {"largest_error": error})
    yield Row(stage, "host, NumPy", [seconds], values=expected)


STAGES = {
    "backbone": _backbone,
    "k_center": _k_center,
    "coding": _coding,
    "maps": _maps,
    "images": _images,
    "metrics": _metrics,
}


def coding_work(num_targets: int, width: int, num_atoms: int, way: str) -> device.Work:
    """What coding must do as XLA composes it: similarities go through memory once each way.

    So do the atoms that are gathered, `K + spare` of them for the ranking and `K` for the code.
    """
    similarities = 2.0 * num_targets * num_atoms * width
    grams = 2.0 * num_targets * _NEIGHBORS**2 * width
    proposed = 0 if way == "exact" else _NEIGHBORS + _SPARE
    ranking = 3.0 * num_targets * proposed * width
    gathered = num_targets * width * (_NEIGHBORS + proposed)
    traffic = _FLOAT * (2 * num_targets * num_atoms + width * (num_atoms + num_targets) + gathered)
    if way == "exact":
        return device.Work(float32=similarities + grams, bytes=traffic)
    return device.Work(float32=grams + ranking, bfloat16=similarities, bytes=traffic)


def recall(found: np.ndarray, expected: np.ndarray) -> float:
    """The share of the expected neighbours `[N, K]` that are among the found ones."""
    return float(np.mean((expected[:, :, None] == found[:, None]).any(axis=2)))


def _coder(find):
    solve = partial(sgfr.affine_ridge, ridge=_RIDGE)
    return partial(sgfr.local_code, num_neighbors=_NEIGHBORS, solve=solve, search=find)


def _detector(embed, code, size, chunk) -> Callable:
    """uint8 images to maps and image scores, as `sgfr_jax.detector.stages` composes it."""

    def detect(state, bank, images):
        points = embed(state, images)
        flat = points.reshape(-1, points.shape[-1])
        scores = sgfr.score(bank, flat, code=code, chunk_size=chunk)
        maps = sgfr.anomaly_map(scores.reshape(points.shape[:-1]), (size, size), sigma=_SIGMA)
        return maps, sgfr.image_score(maps)

    return detect


def _load(network: Network) -> tuple[backbones.Backbone, int]:
    """A network, and its patches per side: of the middle level, as a run chooses."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "weights.safetensors")
        materials.write_weights(network.name, path)
        backbone = backbones.load(network.name, path)
    strides = sorted(backbone.architecture.strides[level] for level in backbone.levels)
    return backbone, -(-network.size // strides[(len(strides) - 1) // 2])


def _widened(points: np.ndarray, width: int) -> np.ndarray:
    """The same points in more dimensions, turned: all distances stay."""
    if points.shape[1] == width:
        return points
    rng = np.random.default_rng(1)
    basis, _ = np.linalg.qr(rng.standard_normal((width, points.shape[1])))
    return points @ basis.T.astype(np.float32)


def _bank(atoms: np.ndarray) -> types.Bank:
    return types.Bank(jnp.asarray(atoms), jnp.ones(len(atoms)), jnp.arange(len(atoms)))


def table(found: Sequence[Row], rates: device.Rates) -> str:
    """The rows as a Markdown table."""
    lines = [
        "| stage | way | median | TFLOP/s | GB/s | floor | bound | reached | values | kernel |",
        "|---" * 10 + "|",
    ]
    return "\n".join([*lines, *("| " + " | ".join(_cells(row, rates)) + " |" for row in found)])


def _cells(row: Row, rates: device.Rates) -> list[str]:
    median = statistics.median(row.seconds)
    cells = [row.stage, row.way, report.duration(median)]
    if row.work is None:
        cells += [""] * 5
    else:
        floor = device.floor(row.work, rates)
        operations = (row.work.float32 + row.work.bfloat16) / median
        cells += [
            f"{operations / 1e12:.3g}",
            f"{row.work.bytes / median / 1e9:.3g}",
            report.duration(floor.seconds),
            floor.bound,
            f"{floor.seconds / median:.0%}",
        ]
    cells.append(", ".join(f"{name} {value:.4g}" for name, value in (row.values or {}).items()))
    top = next(iter((row.kernels or {}).items()), None)
    cells.append(f"{top[0]} {top[1]:.0%}" if top else "")
    return cells


def _as_json(row: Row, rates: device.Rates) -> dict[str, Any]:
    record = row._asdict() | {"median": statistics.median(row.seconds)}
    if row.work is not None:
        floor = device.floor(row.work, rates)
        record |= {"work": row.work._asdict(), "floor": floor.seconds, "bound": floor.bound}
    return record


def main(argv: Sequence[str]) -> list[Row]:
    """Parses the flags, measures, prints each row as it comes and the table, writes the JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accelerator",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--small", action="store_true", help="sizes that a CPU does in a minute")
    parser.add_argument("--stages", nargs="+", default=tuple(STAGES), choices=tuple(STAGES))
    parser.add_argument("--repeats", type=int, default=5, help="(default: %(default)s)")
    parser.add_argument("--json", metavar="FILE", type=report.new_file,
                        help="where every figure is written")  # fmt: skip
    options = parser.parse_args(argv)
    problem = SMALL if options.small else FULL

    made_on = machine.describe()
    print(f"{made_on['device']} ({jax.default_backend()}), jax {made_on['jax']}", flush=True)
    rates = device.rates(size=problem.product, megabytes=problem.megabytes)
    print(
        f"TFLOP/s: {rates.float32 / 1e12:.3g} float32, {rates.tf32 / 1e12:.3g} TF32,"
        f" {rates.bfloat16 / 1e12:.3g} bfloat16; {rates.bandwidth / 1e9:.4g} GB/s",
        flush=True,
    )
    found, start = [], time.perf_counter()
    command = shlex.join(["python", "-m", "benchmarks.accelerator", *argv])
    for row in rows(problem, options.repeats, options.stages):
        found.append(row)
        elapsed = time.perf_counter() - start
        duration = report.duration(statistics.median(row.seconds))
        print(f"{elapsed:4.0f} s  {row.stage}, {row.way}: {duration}", flush=True)
        if options.json:  # after each, as the time on a lent device may end
            record = {
                "command": command,
                "machine": made_on | {"platform": jax.default_backend()},
                "rates": rates._asdict(),
                "rows": [_as_json(row, rates) for row in found],
            }
            options.json.write_text(json.dumps(record, indent=1) + "\n")
    print(table(found, rates))
    return found


if __name__ == "__main__":
    main(sys.argv[1:])
