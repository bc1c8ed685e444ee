"""What a run costs on many devices: by the model of `benchmarks.cost_model`, and with fake devices.

Prints four tables, none of which is the time of a real accelerator:

- peaks: what the predictions take for granted, and where it is written.
- predicted: the least time of every stage for a data set of MVTec AD's size and for a million
  images, on a TPU v5e, a pod of 256 of them, and an H200; the longest stage of each is starred.
- compiled: the model's counts beside those of the compiled programs, of one of 8 fake devices.
- fake: the sharded functions on 1, 2, 4 and 8 fake devices of one CPU, of a fixed size (strong)
  and of a size that grows with the devices (weak). Beside the least time there is that of all
  cores together, which tells what splitting adds; the devices share the cores, so that neither
  tells how fast real ones would be.

`--rounds` also counts the rounds of the exact sampler on patches of real textures, which the
predictions extrapolate from.

    python -m benchmarks.scaling
"""

import argparse
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp

from benchmarks import backbone, cost_model, fake_devices, machine, materials, report
from benchmarks.cost_model import Device, Level
from sgfr_jax import frames, samplers
from sgfr_jax.backbones import ARCHITECTURES
from sgfr_jax.samplers import k_center

_ROOT = Path(__file__).parent.parent
_NETWORK, _SIZE, _GRID, _NEIGHBORS = "efficientnet_lite0", 256, 16, 10
# A hardware thread decodes a JPEG of 1024 x 1024 and resizes it (docs/performance.md: 5.78 ms on
# two threads).
_DECODING = 0.0116
# Seconds of one thread for a pixel of an anomaly map, exact and in bins (docs/performance.md).
_EXACT, _STREAMING = 0.763 / 38.2e6, 0.458 / 38.2e6
_KEPT = 1 << 30  # bytes of maps that are measured exactly: KEPT_BYTES of `pixels`
# Of a device's memory that patches may take.
_SHARE = 0.8

# Peaks. A float32 product at `Precision.HIGHEST` is six bfloat16 products on a TPU. The last two
# numbers, what a loop's iteration and a collective take at least, are guesses.
V5E = Device("TPU v5e", 197e12 / 6, 819e9, 16e9, 9e10, 1.6e10, 24, 2e-6, 1e-5)
H200 = Device("H200", 67e12, 4.8e12, 141e9, 4.5e11, 6.4e10, 28, 5e-6, 2e-5)
POD = V5E._replace(name="TPU v5e-256", threads=28)
PLATFORMS = ((V5E, 1), (POD, 256), (H200, 1))
SOURCES = {
    "float32 products": "197 TFLOP/s bfloat16 over 6 passes (Cloud TPU documentation, v5e); "
    "16,896 lanes, 2 operations at 1.98 GHz (NVIDIA, H200 SXM)",
    "memory": "Cloud TPU documentation, v5e; NVIDIA, H200",
    "link": "two directions of one axis of the torus (How to Scale Your Model, TPUs); NVLink 4, "
    "one way",
    "transfer": "How to Scale Your Model, TPUs; PCIe 5.0 x16, one way",
    "host threads": "ct5lp-hightpu-1t, and an eighth of ct5lp-hightpu-8t; an eighth of two Xeon "
    "8480C (MLPerf inference 4.1, H200-SXM-141GBx8)",
    "step, collective": "guessed",
}


class DataSet(NamedTuple):
    """How many images there are, and what bank is made of them."""

    name: str
    categories: int
    train: int  # images of a category
    test: int
    atoms: int


def _one_percent(images: int) -> int:
    return round(0.01 * images * _GRID**2)


MVTEC = DataSet("MVTec AD's size", 15, 3629 // 15, 1725 // 15, _one_percent(3629 // 15))
MILLION = DataSet("a million images, 20,000 atoms", 1, 800_000, 200_000, 20_000)
DATA_SETS = (
    MVTEC,
    MILLION,
    MILLION._replace(name="a million images, 1%", atoms=_one_percent(800_000)),
)


def predict(data: DataSet, device: Device, devices: int) -> dict[str, float]:
    """The least seconds of every stage."""
    architecture = ARCHITECTURES[_NETWORK]
    names = architecture.default_levels
    levels = [Level(_SIZE // architecture.strides[n], architecture.widths[n]) for n in names]
    features = sum(level.width for level in levels)
    network = backbone.work(architecture, names, _SIZE, 1)
    weights = (network.bytes - 3 * _SIZE**2) / 4 - sum(x.side**2 * x.width for x in levels)
    images, patches = data.train + data.test, data.train * _GRID**2

    def seconds(cost: cost_model.Cost) -> float:
        return cost_model.seconds(cost, device, devices)

    embedding = cost_model.embed(
        images / devices, flops=network.flops, weights=weights, levels=levels, grid=_GRID,
        size=_SIZE,
    )  # fmt: skip
    coding = cost_model.code(data.test * _GRID**2 / devices, features, data.atoms, _NEIGHBORS).plus(
        cost_model.maps(data.test / devices, grid=_GRID, size=_SIZE)
    )
    exact = 4 * data.test * _SIZE**2 <= _KEPT
    found = {
        "decode (host)": images * _DECODING / (device.threads * devices),
        "embed": seconds(embedding),
        "sample": seconds(_sampling(patches, features, data.atoms, device, devices)),
        "code and maps": seconds(coding),
        "metrics (one thread)": data.test * _SIZE**2 * (_EXACT if exact else _STREAMING),
    }
    return {stage: data.categories * value for stage, value in found.items()}


def _sampling(patches, features, atoms, device, devices) -> cost_model.Cost:
    """The sampler of runs where the patches fit into memory, else `sgfr_jax.streaming`."""
    pool = cost_model.ALONE if devices == 1 else cost_model.POOL
    # On real patches a round chose 3 to 32% of the pool, and there were 10 at a bank of 1%.
    rounds = max(10, atoms / (0.1 * pool * devices))
    if 4 * patches * features / devices > _SHARE * device.memory:
        return cost_model.stream(patches, features, atoms, rounds=rounds)
    return cost_model.k_center(patches, features, atoms, rounds=rounds, devices=devices, pool=pool)


def peaks() -> Iterator[Sequence[str]]:
    """The table of what is assumed."""
    yield ("a device", *(device.name for device, _ in PLATFORMS), "source")
    shown = {
        "float32 products": lambda d: f"{d.flops / 1e12:.1f} TFLOP/s",
        "memory": lambda d: f"{d.memory / 1e9:.0f} GB, {d.bandwidth / 1e12:.2f} TB/s",
        "link": lambda d: f"{d.link / 1e9:.0f} GB/s",
        "transfer": lambda d: f"{d.transfer / 1e9:.0f} GB/s",
        "host threads": lambda d: str(d.threads),
        "step, collective": lambda d: f"{d.step * 1e6:.0f} us, {d.collective * 1e6:.0f} us",
    }
    for name, show in shown.items():
        yield (name, *(show(device) for device, _ in PLATFORMS), SOURCES[name])


def predicted() -> Iterator[Sequence[str]]:
    """The table of predictions."""
    yield ("data set", "stage", *(device.name for device, _ in PLATFORMS))
    for data in DATA_SETS:
        columns = [predict(data, device, devices) for device, devices in PLATFORMS]
        for stage in columns[0]:
            cells = [
                report.duration(times[stage]) + " *" * (times[stage] == max(times.values()))
                for times in columns
            ]
            yield (data.name, stage, *cells)


def fake(options: argparse.Namespace) -> dict[tuple[str, int], dict]:
    """What processes with so many fake devices found, by the kind of scaling and their number."""
    found = {}
    for kind in ("strong", "weak"):
        for devices in options.devices:
            scale = devices if kind == "weak" else max(options.devices)
            problem = fake_devices.Problem(
                targets=options.targets * scale, atoms=options.atoms,
                points=options.points * scale, chosen=options.chosen, repeats=options.repeats,
            )  # fmt: skip
            found[kind, devices] = _with_devices(problem, devices)
    return found


def _with_devices(problem: fake_devices.Problem, devices: int) -> dict:
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        # Threads of XLA's pool, by default as many as cores. Every device waits in one of them for
        # products that others are to share: without a thread to spare they wait for ever.
        "NPROC": str(2 * devices + (os.cpu_count() or 1)),
    }
    finished = subprocess.run(
        [sys.executable, "-m", "benchmarks.fake_devices", json.dumps(problem._asdict())],
        cwd=_ROOT, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    if finished.returncode:
        raise RuntimeError(f"{devices} fake devices failed:\n{finished.stderr[-2000:]}")
    return json.loads(finished.stdout.splitlines()[-1])


def compared(found: dict) -> Iterator[Sequence[str]]:
    """The table of the model's counts beside the compiled program's, of one device."""
    yield ("function", "MFLOP, model", "compiled", "gathered, model", "compiled", "reduced, model",
           "compiled")  # fmt: skip
    for stage, figures in found.items():
        model, counted = figures["model"], figures["counted"]
        yield (
            stage, f"{model['flops'] / 1e6:.1f}", f"{counted['flops'] / 1e6:.1f}",
            *(f"{x[kind]:,.0f}" for kind in ("gathered", "reduced") for x in (model, counted)),
        )  # fmt: skip


def measured(found: dict[tuple[str, int], dict]) -> Iterator[Sequence[str]]:
    """The table of times on fake devices."""
    numbers = sorted({devices for _, devices in found})
    yield ("function", "", *(f"{number} device{'s' * (number > 1)}" for number in numbers))
    for kind in ("strong", "weak"):
        for stage in found[kind, numbers[0]]:
            figures = [found[kind, number][stage] for number in numbers]
            for title, name in (("", "seconds"), (", of all cores", "core_seconds")):
                least = [report.duration(min(of[name])) for of in figures]
                yield (stage, kind + title, *least)


def rounds(images: int) -> Iterator[Sequence[str]]:
    """The table of the exact sampler's rounds."""
    levels = ARCHITECTURES[_NETWORK].default_levels
    points = jnp.asarray(materials.features(materials.photographs(images, _SIZE), levels, _GRID))
    yield ("patches", "atoms", "pool", "rounds", "choices a round")
    for ratio in (0.001, 0.01):
        num = math.ceil(ratio * len(points))
        for pool in (cost_model.POOL, cost_model.ALONE, 4 * cost_model.ALONE):
            number = int(count_rounds(points, num, min(pool, len(points) - 1)))
            yield (*(f"{n:,}" for n in (len(points), num, pool)), str(number),
                   f"{num / number:.0f}")  # fmt: skip


@partial(jax.jit, static_argnums=(1, 2))
def count_rounds(points: jax.Array, num: int, pool: int) -> jax.Array:
    """How many rounds `samplers.k_center_advance` needs for `num` choices.

    With the pools of `P` devices together, and the farthest points spread evenly over them, those
    of `sharding.k_center_over_patches` are as many.
    """
    origin, _ = frames.frame(points, jnp.ones(len(points)))
    norms = jnp.sum((points - origin[None]) ** 2, axis=-1)
    start = samplers.k_center_start(jax.random.key(0), points, jnp.ones(len(points)), num)

    def advance(carry):
        number, state = carry
        values, places = jax.lax.top_k(state.distances, pool + 1)
        places = places[:-1]
        found, count = k_center.traverse_pool(
            points[places] - origin[None], norms[places], values[:-1], values[-1],
            start=state.count, upto=num, num_slots=num,
        )  # fmt: skip
        fresh = k_center.fresh_slots(state, count)
        indices = jnp.where(fresh, places[found], state.indices)
        distances = k_center.learn(
            state.distances, points, origin, norms,
            lambda slots: (points[indices[slots]] - origin[None], norms[indices[slots]]),
            start=state.count, count=count, block_size=cost_model.BLOCK,
        )  # fmt: skip
        out = jnp.where(fresh, indices, len(points))
        distances = distances.at[out].set(-jnp.inf, mode="drop")
        return number + 1, state._replace(indices=indices, count=count, distances=distances)

    return jax.lax.while_loop(lambda carry: carry[1].count < num, advance, (0, start))[0]


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--devices", nargs="+", type=int, default=(1, 2, 4, 8))
    parser.add_argument("--targets", type=int, default=256, help="of a device, when weak")
    parser.add_argument("--points", type=int, default=2048, help="of a device, when weak")
    parser.add_argument("--atoms", type=int, default=1000, help="(default: %(default)s)")
    parser.add_argument("--chosen", type=int, default=160, help="(default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="of which the least counts")
    parser.add_argument("--rounds", type=int, metavar="IMAGES", help="count the sampler's rounds")
    options = parser.parse_args(argv)

    def show(title: str, cells: Iterator[Sequence[str]]) -> None:
        print(f"\n{title}\n\n{report.markdown(list(cells))}", flush=True)

    print(report.heading(machine.describe(), None))
    show("peaks", peaks())
    show("predicted", predicted())
    found = fake(options)
    most = max(options.devices)
    show(f"compiled, one of {most} devices", compared(found["strong", most]))
    show("fake", measured(found))
    if options.rounds:
        show("rounds", rounds(options.rounds))


if __name__ == "__main__":
    main()
