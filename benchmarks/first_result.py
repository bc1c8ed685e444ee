"""Scores one image and ends: what `benchmarks.startup` starts.

    python -m benchmarks.first_result [CACHE]

CACHE is a directory for JAX's persistent compilation cache; without it everything is compiled.
"""

import argparse
import sys
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp

import sgfr_jax as sgfr
from sgfr_jax import backbones, types

_ATOMS, _GRID, _SIZE = 1950, 16, 256


def main(argv: Sequence[str]) -> None:
    """Loads, compiles and scores."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.first_result",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("cache", nargs="?", metavar="CACHE")
    cache = parser.parse_args(argv).cache
    if cache is not None:
        jax.config.update("jax_compilation_cache_dir", cache)
        # Everything is kept, also what compiles quickly.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    backbone = backbones.load("efficientnet_lite0")
    width = sum(backbone.architecture.widths[level] for level in backbone.levels)
    code = partial(sgfr.local_code, num_neighbors=10, solve=partial(sgfr.affine_ridge, ridge=1e-3))

    @jax.jit
    def detect(state, atoms, image):
        bank = types.Bank(atoms, jnp.ones(_ATOMS), jnp.arange(_ATOMS))
        merged = sgfr.merge_levels(backbone.embed(state, image), (_GRID, _GRID))
        points = sgfr.unit_norm(merged).reshape(-1, width)
        scores = sgfr.score(bank, points, code=code).reshape(1, _GRID, _GRID)
        return sgfr.anomaly_map(scores, (_SIZE, _SIZE), sigma=4.0)

    atoms = jnp.sin(jnp.arange(_ATOMS * width, dtype=jnp.float32)).reshape(_ATOMS, width)
    image = jnp.zeros((1, _SIZE, _SIZE, 3), jnp.uint8)
    print(jax.device_get(detect(backbone.state, atoms, image)).max())


if __name__ == "__main__":
    main(sys.argv[1:])
