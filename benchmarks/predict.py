"""From patches to codes, from scores to maps, and from image bytes to maps.

- coding: 256 patches of one image over a bank, by affine ridge on the 10 nearest atoms, found by
  each search of `sgfr_jax.search`, and by the nearest atom; against anomalib's scoring (nearest
  atom, and the image's score), and against scikit-learn and FAISS for the search of the 10 nearest
  alone.
- map: a 16 x 16 grid of scores resized to 256 pixels and blurred, sigma 4.
- bytes: encoded images in memory, decoded, resized, embedded, coded and drawn, 16 at a time;
  against anomalib's Patchcore with the same network, weights, levels, grid and size of bank.

    taskset -c 0 python -m benchmarks.predict --peers=.venv-peers/bin/python
"""

import argparse
import io
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
from scipy import ndimage

import sgfr_jax as sgfr
from benchmarks import backbone as networks
from benchmarks import machine, materials, report, timing, workers
from sgfr_jax import backbones, patches, search, types
from sgfr_jax.datasets import images as reading

_STAGES = ("coding", "map", "bytes")
_LAYERS = ("block4", "block10", "block14")  # D = 344
_GRID, _SIZE, _SIGMA, _NEIGHBORS, _RIDGE = 16, 256, 4.0, 10, 1e-3
_PATCHES = _GRID**2
_NEAREST = f"{report.OURS}, nearest"
_RIDGE_CODE = partial(
    sgfr.local_code, num_neighbors=_NEIGHBORS, solve=partial(sgfr.affine_ridge, ridge=_RIDGE)
)
_CODERS = {
    report.OURS: _RIDGE_CODE,
    _NEAREST: partial(sgfr.local_code, num_neighbors=1, solve=sgfr.nearest),
}
_SEARCHES = {
    f"{report.OURS}, {name}": partial(_RIDGE_CODE, search=find)
    for name, find in (("reduced", search.reduced), ("approximate", search.approximate))
}
# The levels of each network in the order of anomalib, whose first gives the grid.
_ANOMALIB_LAYERS = {
    "efficientnet_lite0": ["block10", "block4", "block14"],
    "resnet18": ["layer2", "layer3"],
}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of this benchmark."""
    parser.add_argument("--stages", nargs="+", default=_STAGES, choices=_STAGES)
    parser.add_argument("--banks", nargs="+", type=int, default=(1950, 19500),
                        help="atoms, of coding")  # fmt: skip
    parser.add_argument("--networks", nargs="+", default=tuple(_ANOMALIB_LAYERS),
                        choices=tuple(_ANOMALIB_LAYERS), help="of bytes")  # fmt: skip
    parser.add_argument("--batch", type=int, default=16, help="images at a time, of bytes")
    parser.add_argument("--bank", type=int, default=1950, help="atoms, of bytes")
    parser.add_argument("--source_size", type=int, default=400, help="pixels of the encoded images")
    parser.add_argument("--formats", nargs="+", default=("JPEG", "PNG"), choices=("JPEG", "PNG"))


def measure(options: argparse.Namespace, peers: workers.Peers) -> list[report.Row]:
    """Measures the stages asked for."""
    stages = {"coding": _coding, "map": _map, "bytes": _bytes}
    return [row for name in options.stages for row in stages[name](options, peers)]


def _coding(options, peers):
    most = max(options.banks)
    # One image more than the bank needs: the targets, which are not in it.
    images = materials.photographs(-(-most // _PATCHES) + 1, _SIZE)
    points = materials.features(images, _LAYERS, _GRID)
    targets, nominal = points[:_PATCHES], points[_PATCHES:]
    found = []
    for num_atoms in options.banks:
        atoms = nominal[np.random.default_rng(0).permutation(len(nominal))[:num_atoms]]
        bank = _bank(atoms)
        contenders = {
            name: timing.contender(_compiled(partial(sgfr.score, code=code), bank, targets))
            for name, code in (_CODERS | _SEARCHES).items()
        }
        given = {"atoms": atoms, "targets": targets}
        searching = given | {"num_neighbors": _NEIGHBORS}
        contenders |= peers.contender("anomalib", "patchcore:scorer", **given)
        contenders |= peers.contender("scikit-learn", "search:scikit_learn", **searching)
        contenders |= peers.contender("FAISS", "search:faiss_flat", **searching)
        timed = timing.alternate(contenders, repeats=options.repeats, number=5)
        exact, nearest = (np.asarray(timed[who].value) for who in _CODERS)
        found += report.rows(
            f"coding {_PATCHES} patches, bank {num_atoms:,}",
            timed,
            work=coding_work(*targets.shape, num_atoms),
            notes={
                report.OURS: f"affine ridge, K = {_NEIGHBORS}",
                _NEAREST: "K = 1",
                **dict.fromkeys(_SEARCHES, f"K = {_NEIGHBORS}, bfloat16 search"),
                "anomalib": "K = 1, and the image's score",
                "scikit-learn": f"search of {_NEIGHBORS} alone",
                "FAISS": f"search of {_NEIGHBORS} alone",
            },
            values={
                who: {"relative_difference": float(np.abs(timed[who].value / exact - 1).max())}
                if who in _SEARCHES
                else {
                    "nearest_distance_difference": float(np.abs(timed[who].value - nearest).max())
                }
                for who in timed
                if who != report.OURS
            },
        )
        peers.forget()
    return found


def coding_work(num_targets: int, width: int, num_atoms: int) -> machine.Work:
    """The distances to all atoms, and the Gram matrix of the differences of each patch's nearest.

    The bank and the patches are read once.
    """
    distances = 2.0 * num_targets * num_atoms * width
    grams = 2.0 * num_targets * _NEIGHBORS**2 * width
    return machine.Work(distances + grams, 4.0 * width * (num_atoms + num_targets))


def _map(options, peers):
    scores = np.random.default_rng(0).random((1, _GRID, _GRID), np.float32)
    draw = partial(sgfr.anomaly_map, size=(_SIZE, _SIZE), sigma=_SIGMA)

    def scipy_map():
        large = ndimage.zoom(scores[0], _SIZE // _GRID, order=1, mode="nearest", grid_mode=True)
        return ndimage.gaussian_filter(large, _SIGMA)

    contenders = {
        report.OURS: timing.contender(_compiled(draw, scores)),
        "scipy": timing.contender(scipy_map),
        **peers.contender("anomalib", "patchcore:mapper", scores=scores, size=_SIZE),
        **peers.contender("torch", "patchcore:bilinear_mapper", scores=scores, size=_SIZE),
    }
    timed = timing.alternate(contenders, repeats=options.repeats, number=20)
    ours = np.asarray(timed[report.OURS].value)
    return report.rows(
        f"map, {_GRID} to {_SIZE} pixels and blur",
        timed,
        work=machine.Work(2.0 * _SIZE * _GRID * (_GRID + _SIZE), 4.0 * _SIZE**2),
        notes={"anomalib": "enlarges by nearest neighbour", "torch": "bilinear, anomalib's blur"},
        values={
            who: {"largest_difference": float(np.abs(np.asarray(found.value) - ours).max())}
            for who, found in timed.items()
            if who != report.OURS
        },
    )


def _bytes(options, peers):
    images = materials.photographs(options.batch, options.source_size, seed=1)
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for name in options.networks:
            path = Path(folder, f"{name}.safetensors")
            materials.write_weights(name, path)
            backbone = backbones.load(name, path)
            grid = _grid(backbone)
            nominal = materials.photographs(-(-options.bank // grid**2), _SIZE)
            embed = _embedder(backbone, grid)
            points = np.asarray(jax.jit(embed)(backbone.state, nominal)).reshape(
                -1, sum(backbone.architecture.widths[level] for level in backbone.levels)
            )
            rng = np.random.default_rng(0)
            atoms = points[rng.choice(len(points), options.bank, replace=False)]
            for kind in options.formats:
                encoded = materials.encode(images, kind)
                contenders = {
                    who: timing.contender(_pipeline(backbone, embed, _bank(atoms), code, encoded))
                    for who, code in _CODERS.items()
                } | peers.contender(
                    "anomalib",
                    "patchcore:pipeline",
                    architecture=name,
                    weights=str(path),
                    layers=_ANOMALIB_LAYERS[name],
                    num_atoms=len(atoms),
                    images=np.frombuffer(b"".join(encoded), np.uint8),
                    lengths=[len(part) for part in encoded],
                    nominal=nominal,
                )
                timed = timing.alternate(contenders, repeats=options.repeats)
                found += report.rows(
                    f"{kind} bytes to map, {name}, batch {options.batch}, per image",
                    timed,
                    per=options.batch,
                    work=_pipeline_work(backbone, grid, atoms, options.batch),
                    notes={
                        report.OURS: f"affine ridge, K = {_NEIGHBORS}",
                        _NEAREST: "K = 1",
                        "anomalib": "K = 1, no unit norm, batch norms as trained, no Lightning",
                    },
                )
                peers.forget()
    return found


def _pipeline(backbone, embed, bank, code, encoded) -> Callable[[], jax.Array]:
    """What turns encoded images into maps, as an application would call it."""

    @jax.jit
    def detect(state, bank, batch):
        points = embed(state, batch)
        scores = sgfr.score(bank, points.reshape(-1, points.shape[-1]), code=code)
        return sgfr.anomaly_map(scores.reshape(points.shape[:-1]), (_SIZE, _SIZE), sigma=_SIGMA)

    def run():
        decoded = (np.asarray(Image.open(io.BytesIO(part))) for part in encoded)
        batch = np.stack([reading.read_image(pixels, _SIZE) for pixels in decoded])
        return jax.device_get(detect(backbone.state, bank, batch))

    return run


def _pipeline_work(backbone, grid, atoms, batch) -> machine.Work:
    """The network's and the coding's; decoding has no floor here."""
    network = networks.work(backbone.architecture, backbone.levels, _SIZE, batch)
    coding = coding_work(grid**2, atoms.shape[1], len(atoms))
    return machine.Work(network.flops + coding.flops, network.bytes + coding.bytes)


def _embedder(backbone, grid):
    def embed(state, batch):
        return patches.unit_norm(patches.merge_levels(backbone.embed(state, batch), (grid, grid)))

    return embed


def _grid(backbone) -> int:
    """Patches per side: of the middle level, as `sgfr_jax.commands.flags.config` chooses."""
    strides = sorted(backbone.architecture.strides[level] for level in backbone.levels)
    return _SIZE // strides[(len(strides) - 1) // 2]


def _bank(atoms: np.ndarray) -> types.Bank:
    return types.Bank(jnp.asarray(atoms), jnp.ones(len(atoms)), jnp.arange(len(atoms)))


def _compiled(function, *arguments) -> Callable[[], jax.Array]:
    """Calls a compiled function on arguments that are on the device already."""
    compiled, placed = jax.jit(function), jax.device_put(arguments)
    return lambda: jax.block_until_ready(compiled(*placed))


if __name__ == "__main__":
    report.run(measure, __doc__, add_flags=add_flags, repeats=9)
