"""Run by `test_sharding` in a process of its own: prints what one and eight devices find."""

import json
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from sgfr_jax import pipeline, samplers, sharding, solvers, types

COLLECTIVES = "all-gather", "all-reduce", "all-to-all", "collective-permute", "reduce-scatter"
SOLVE = partial(solvers.affine_ridge, ridge=1e-3)
CODE = partial(solvers.local_code, num_neighbors=5, solve=SOLVE)
LASSO = partial(solvers.local_code, num_neighbors=5, solve=partial(solvers.lasso, l1=0.05))
KEY = jax.random.key(3)


def collectives(function, *args):
    """The result, and the number of elements that each collective of the program makes."""
    compiled = jax.jit(function).lower(*args).compile()
    return compiled(*args), count_collectives(compiled.as_text())


def count_collectives(program):
    """The number of elements that each collective of a program's text makes."""
    found = {}
    for shapes, kind in re.findall(
        rf"= (\(?[a-z0-9]+\[.*?) ({'|'.join(COLLECTIVES)})(?:-start)?\(", program
    ):
        sizes = re.findall(r"\[([\d,]*)\]", shapes)
        elements = [int(np.prod([int(n) for n in s.split(",") if n])) for s in sizes]
        found.setdefault(kind, []).append(max(elements))
    return found


def difference(a, b, largest=np.max):
    """The largest one, by NumPy: JAX would compile every operation for eight devices."""
    return float(largest(np.abs(np.asarray(a) - np.asarray(b))))


def refusal(function, *args, **more):
    """What the ValueError says that a call ends in."""
    try:
        function(*args, **more)
    except ValueError as error:
        return str(error)


def main():
    rng = np.random.default_rng(0)
    points = np.float32(rng.normal(size=(3001, 12)))
    points[17] = np.nan
    weights = np.ones(3001, np.float32)
    weights[5] = 0
    targets = np.float32(rng.normal(size=(64, 12)))
    targets[9] = np.nan
    mesh = sharding.make_mesh(jax.devices())
    report = {
        "devices": len(jax.devices()),
        "again": sharding.make_mesh(mesh.devices.ravel()) == mesh,
    }

    # k-center, with padding, against one device.
    sample_alone = jax.jit(samplers.greedy_k_center, static_argnums=3)
    alone = jax.device_get(sample_alone(KEY, points, weights, 120))
    padded, padded_weights = (np.asarray(sharding.pad_rows(x, 8)) for x in (points, weights))
    for pool in (1, 16, 256):
        sample = partial(sharding.k_center_over_patches, num=120, mesh=mesh, pool_size=pool)
        (bank, radius), counted = collectives(sample, KEY, padded, padded_weights)
        report[f"k_center {pool}"] = {
            "same": np.array_equal(bank.indices, alone.indices),
            "atoms": difference(bank.atoms, points[alone.indices]),
            "radius": difference(radius, np.sqrt(alone.distances.max())),
            "collectives": counted,
        }
    few, few_radius = jax.jit(partial(sharding.k_center_over_patches, num=20, mesh=mesh))(
        KEY, padded[:24], padded_weights[:24] * (np.arange(24) < 10)
    )
    report["few"] = {"filled": int(np.sum(few.weights)), "radius": float(few_radius)}

    # Scores, of a bank that is on no mesh yet.
    bank = jax.device_get(bank)
    bank = types.Bank(bank.atoms, bank.weights * (np.arange(120) != 3), bank.indices)
    few_atoms = jax.tree.map(lambda x: x[:8], bank)
    score_alone = jax.jit(partial(pipeline.score, code=CODE))
    expected, of_few = score_alone(bank, targets), score_alone(few_atoms, targets)
    split = sharding.data_parallel(partial(pipeline.score, code=CODE), mesh)
    found, counted = collectives(split, bank, targets)
    report["data"] = {
        "error": difference(found, expected, np.nanmax),
        "nan": np.flatnonzero(np.isnan(found)).tolist(),
        "collectives": counted,
        "parts": len({str(s.index) for s in found.addressable_shards}),
    }
    for parts in (2, 8):
        over = partial(
            sharding.score_over_atoms,
            mesh=sharding.make_mesh(jax.devices(), num_atoms_shards=parts),
            num_neighbors=5,
            solve=SOLVE,
        )
        found, counted = collectives(over, bank, targets)
        tight = jax.jit(over)(few_atoms, targets)
        chunked = jax.jit(partial(over, chunk_size=3))(bank, targets)
        report[f"atoms {parts}"] = {
            "error": difference(found, expected, np.nanmax),
            "tight": difference(tight, of_few, np.nanmax),
            "chunked": difference(chunked, expected, np.nanmax),
            "nan": np.flatnonzero(np.isnan(found)).tolist(),
            "collectives": counted,
        }

    # Inside `shard_map` with its types checked, each device on its own.
    def of_part(bank, points):
        chosen = samplers.greedy_k_center(KEY, points, jnp.ones(len(points)), 4)
        return chosen.indices, pipeline.score(bank, points, code=LASSO, chunk_size=3)

    checked = jax.shard_map(
        of_part, mesh=mesh, in_specs=(P(), P("data")), out_specs=P("data"), check_vma=True
    )
    rows = np.nan_to_num(targets)
    chosen, found = jax.jit(checked)(bank, rows)
    on_one = jax.jit(of_part)
    alone = zip(*(on_one(bank, part) for part in rows.reshape(8, 8, 12)), strict=True)
    alone = [np.concatenate(parts) for parts in alone]
    report["checked"] = {
        "same": np.array_equal(chosen, alone[0]),
        "error": difference(found, alone[1]),
    }

    # Arrays of a mesh of explicit axes: the functions of sharding, and those of the core in
    # `auto_axes`.
    explicit = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Explicit,))
    host = (bank, rows, np.ones(64, np.float32))
    expected, alone = score_alone(bank, rows), sample_alone(KEY, *host[1:], 12)
    with jax.set_mesh(explicit):

        @jax.jit
        def both_ways(bank, rows, weights):
            score = partial(pipeline.score, code=CODE)
            sample = partial(samplers.greedy_k_center, num=12)
            bank_of_all, _ = sharding.k_center_over_patches(KEY, rows, weights, 12, mesh=explicit)
            return (
                (sharding.data_parallel(score, explicit)(bank, rows), bank_of_all.indices),
                (
                    jax.sharding.auto_axes(score, out_sharding=P("data"))(bank, rows),
                    jax.sharding.auto_axes(sample, out_sharding=P())(KEY, rows, weights).indices,
                ),
            )

        found = both_ways(jax.device_put(host[0], P()), *jax.device_put(host[1:], P("data")))
    for name, (scores, chosen) in zip(("explicit", "automatic"), found, strict=True):
        report[name] = {
            "same": np.array_equal(chosen, alone.indices),
            "error": difference(scores, expected),
            "parts": len({str(s.index) for s in scores.addressable_shards}),
        }

    report["undivided"] = {
        "atoms": refusal(over, jax.tree.map(lambda x: x[:-1], bank), targets),
        "targets": refusal(
            sharding.score_over_atoms, bank, targets[:63],
            mesh=mesh, num_neighbors=5, solve=SOLVE,
        ),
        "points": refusal(
            sharding.k_center_start_over_patches, KEY, points, weights, 120, mesh=mesh
        ),
        "batch": refusal(split, bank, targets[:63]),
    }  # fmt: skip
    print(json.dumps(report))


if __name__ == "__main__":
    main()
