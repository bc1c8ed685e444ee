"""Peak resident memory of whole runs, `python -m experiments.run`, by the number of images.

The images are made (--counts of them to train on, a third as many to test, half of those with a
defect) unless --dataset (and --data_dir) name a data set. Nothing is taken from a cache. Rows hold
seconds and, as note and value, the peak; the size of the fitted state (the bank) stands beside it.
With --peers, anomalib's Patchcore is fitted to the same images in a process of its own (ResNet-18,
the same share).

    taskset -c 0 python -m benchmarks.memory --counts 100 1000 --peers=.venv-peers/bin/python
    python -m benchmarks.memory --run_flags metrics=streaming
    python -m benchmarks.memory --dataset=mtd --data_dir=../shared/data/mtd
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks import materials, processes, report, workers
from sgfr_jax.backbones import ARCHITECTURES

_SIZE = 256
_DEFECT = 40  # pixels a side
_FLOAT, _PER_ATOM = 4, 8  # bytes; an atom has a weight and an index beside its features


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of this benchmark."""
    parser.add_argument("--counts", nargs="+", type=int, default=(100, 400),
                        help="nominal training images")  # fmt: skip
    parser.add_argument("--dataset", help="of experiments.run, instead of made images")
    parser.add_argument("--data_dir", help="where it lies")
    parser.add_argument("--run_flags", nargs="*", default=(), metavar="FLAG=VALUE",
                        help="more flags of experiments.run, without the dashes")  # fmt: skip


def measure(options: argparse.Namespace, peers: workers.Peers) -> list[report.Row]:
    """Measures one run for each number of images, or one of a data set."""
    with tempfile.TemporaryDirectory() as folder:
        if options.dataset:
            flags = [f"--dataset={options.dataset}"]
            flags += [f"--data_dir={options.data_dir}"] if options.data_dir else []
            return [_run(options.dataset, flags, Path(folder), options)]
        found = []
        for count in options.counts:
            data = Path(folder, f"data{count}")
            write_images(data, count)
            stage = f"{count:,} training images"
            flags = ["--dataset=folder", f"--data_dir={data}"]
            found.append(_run(stage, flags, Path(folder, f"run{count}"), options))
            if peers.present:
                found.append(_anomalib(stage, data, Path(folder), options))
        return found


def write_images(folder: Path, count: int) -> None:
    """Writes a data set of the layout that `--dataset=folder` reads."""
    num_test = max(2, count // 3)
    images = {
        "train/good": (0, count),
        "test/good": (1, num_test - num_test // 2),
        "test/square": (2, num_test // 2),
    }
    for name, (seed, number) in images.items():
        (folder / name).mkdir(parents=True)
        for i in range(number):
            # One at a time: ten thousand at once would be 2 GB.
            image = materials.photographs(1, _SIZE, seed=seed * 1_000_003 + i)[0]
            if name == "test/square":
                mask = np.zeros((_SIZE, _SIZE), np.uint8)
                top, left = np.random.default_rng(i).integers(0, _SIZE - _DEFECT, 2)
                mask[top : top + _DEFECT, left : left + _DEFECT] = 255
                image = np.where(mask[..., None] > 0, 255 - image, image)
                masks = folder / "ground_truth" / "square"
                masks.mkdir(parents=True, exist_ok=True)
                Image.fromarray(mask).save(masks / f"{i:05d}_mask.png")
            Image.fromarray(image).save(folder / name / f"{i:05d}.png", compress_level=1)


def _run(stage, flags, workdir, options):
    more = [f"--{flag}" for flag in options.run_flags]
    command = [
        sys.executable,
        "-m",
        "experiments.run",
        "--cache_dir=",
        "--layers=fast",
        *flags,
        f"--workdir={workdir}",
        *more,
    ]
    finished = processes.run(command)
    record = json.loads((workdir / "results.json").read_text())
    # One bank is held at a time; the largest counts.
    num_atoms = max(results["num_atoms"] for results in record["categories"].values())
    width = sum(ARCHITECTURES[record["config"]["backbone"]].widths[level]
                for level in record["config"]["layers"])  # fmt: skip
    fitted = num_atoms * (width * _FLOAT + _PER_ATOM)
    values = {"peak_bytes": finished.peak_bytes, "fitted_bytes": fitted}
    note = f"peak {finished.peak_bytes / 1e6:.0f} MB, fitted state {fitted / 1e6:.1f} MB"
    return report.Row(stage, report.OURS, [finished.seconds], None, None, note, values)


def _anomalib(stage, data, folder, options):
    weights = folder / "resnet18.safetensors"
    if not weights.exists():
        materials.write_weights("resnet18", weights)
    images = str(data / "train" / "good")
    command = [options.peers, "-m", "benchmarks.peers.fit_folder", images, str(weights)]
    finished = processes.run(command, HF_HUB_OFFLINE="1")
    values = {"peak_bytes": finished.peak_bytes}
    note = f"peak {finished.peak_bytes / 1e6:.0f} MB, fitting alone"
    return report.Row(stage, "anomalib", [finished.seconds], None, None, note, values)


if __name__ == "__main__":
    report.run(measure, __doc__, add_flags=add_flags, repeats=None)
