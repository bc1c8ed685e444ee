"""Reading images: threads of one process and worker processes, beside the network that they feed.

`sgfr_jax` is one thread for each core. A pass is over all images, a worker's start included; the
notes have the images per second of the whole pass, those after the first batch, and when that was
there. `embedding` is EfficientNet-Lite0 to the usual levels on as many images in memory, which
needs the same cores (where there is no accelerator). Everything is read to squares of 256 pixels,
from the system's cache.

The JPEGs are made: photographs with some noise, which makes them as large as a camera's.

    python -m benchmarks.loading --mtd=../shared/data/mtd
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import jax
import numpy as np
from PIL import Image

from benchmarks import materials, report, timing, workers
from sgfr_jax import backbones, datasets
from sgfr_jax.datasets import Example, batches, images

_SIZE, _BATCH = 256, 16
_NOISE = 6  # grey levels
_EMBEDDED = 8  # batches


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of this benchmark."""
    parser.add_argument("--mtd", metavar="DIR", help="where the magnetic tiles lie")
    parser.add_argument("--count", type=int, default=1000, help="JPEGs (default: %(default)s)")
    parser.add_argument("--side", type=int, default=1024, help="their pixels (%(default)s)")
    parser.add_argument("--workers", nargs="+", type=int, default=(1, 2))


def measure(options: argparse.Namespace, peers: workers.Peers) -> list[report.Row]:
    """Measures every way of reading every set of images."""
    del peers  # none of them has a pipeline of its own
    found = []
    embed = _embedder()
    if options.mtd:
        (tiles,) = datasets.load("mtd", options.mtd)
        found += _passes("magnetic tiles", tiles.train + tiles.test, embed, options)
    with tempfile.TemporaryDirectory() as folder:
        made = write_images(Path(folder), options.count, options.side)
        found += _passes(f"JPEG, {options.side} pixels", made, embed, options)
    return found


def write_images(folder: Path, count: int, side: int) -> list[Example]:
    """Writes JPEGs into a folder."""
    made = []
    for i in range(count):
        rng = np.random.default_rng(i)
        image = materials.photographs(1, side, seed=i)[0]
        noisy = image + rng.normal(0, _NOISE, image.shape)
        path = folder / f"{i:05d}.jpg"
        Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(path, quality=90)
        made.append(Example(path.name, path, 0, "good", None))
    return made


def _passes(stage, examples, embed, options) -> list[report.Row]:
    names = {0: report.OURS} | {n: f"{n} worker{'s' * (n > 1)}" for n in options.workers}
    passes = {name: [] for name in names.values()}
    contenders = {
        name: timing.contender(partial(_read, examples, number, passes[name]))
        for number, name in names.items()
    }
    contenders["embedding"] = timing.contender(partial(embed, len(examples)))
    timed = timing.alternate(contenders, repeats=options.repeats)
    notes, values = {}, {}
    for who, taken in timed.items():
        rate = len(examples) / statistics.median(taken.seconds)
        notes[who], values[who] = f"{rate:.0f} images/s", {"images_per_second": rate}
        if who in passes:
            # The first was to warm up.
            first, steady = map(statistics.median, zip(*passes[who][1:], strict=True))
            notes[who] += f"; {steady:.0f} after the first batch, at {first:.2f} s"
            values[who] |= {"first_batch_seconds": first, "images_per_second_after": steady}
    megabytes = sum(os.path.getsize(example.image) for example in examples) / 1e6
    stage = f"{stage}: {len(examples)}, {megabytes:.0f} MB, per image"
    return report.rows(stage, timed, per=len(examples), notes=notes, values=values)


def _read(examples: Sequence[Example], number: int, passes: list[tuple[float, float]]) -> int:
    """One pass; appends when the first batch was there, and images per second after it."""
    read = partial(images.read_example, size=_SIZE)
    began, first, seen = time.perf_counter(), None, 0
    for batch in batches.batches(
        examples, read, size=(_SIZE, _SIZE), batch_size=_BATCH, workers=number
    ):
        seen += int(batch.valid.sum())
        if first is None:
            first, early = time.perf_counter() - began, seen
    passes.append((first, (seen - early) / (time.perf_counter() - began - first)))
    return seen


def _embedder():
    backbone = backbones.load("efficientnet_lite0")
    embed = partial(jax.jit(backbone.embed), backbone.state)
    batch = materials.photographs(_BATCH, _SIZE)
    jax.block_until_ready(embed(batch))

    def whole(count: int) -> timing.Extrapolated:
        """As long as that many images would take."""
        start = time.perf_counter()
        for _ in range(_EMBEDDED):
            jax.block_until_ready(embed(batch))
        seconds = time.perf_counter() - start
        return timing.Extrapolated(seconds * count / (_EMBEDDED * _BATCH), count)

    return whole


if __name__ == "__main__":
    report.run(measure, __doc__, add_flags=add_flags, repeats=3)
