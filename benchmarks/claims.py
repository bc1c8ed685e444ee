"""The method's claims, tried on MTD and on the demo: `docs/results.md` has the tables.

1. Reconstruction from the bank beats its nearest atom, for every sampler and size of bank.
2. A small bank is enough.
3. What is nominal but not in the bank is mimicked, defects are not.
4. Explicit subspaces against implicit ones of equal memory.
5. Codes over too many atoms mimic defects.
6. Beyond the paper: kernel codes.

    python -m benchmarks.claims --mtd=../shared/data/mtd --cache_dir=.cache --json=claims.json

Without `--mtd` only the demo is used. `--small` is a trial of the script, not of the claims.
"""

import argparse
import itertools
import json
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import sgfr_jax as sgfr
from benchmarks import claims_data as data
from benchmarks import claims_judging as judging
from benchmarks import report
from sgfr_jax import subspaces, types

Record = dict[str, Any]  # of one seed: text and integers say what was done, floats are results
_RATIOS = (0.001, 0.0025, 0.01, 0.025, 0.1)
_POOL = 20_000
_SPLITS = ("random", "grouped")


class Trial:
    """What the claims are tried on."""

    def __init__(self, options: argparse.Namespace):
        """Reads the data."""
        cache = Path(options.cache_dir) if options.cache_dir else None
        self.small = options.small
        self.seeds = range(options.seeds)
        self.splits = options.splits.split(",")
        self.setting = (
            data.Setting(64, 8, 64, 8, 2, 24, cache)
            if options.small
            else data.Setting(256, 16, 128, 60, 24, None, cache)
        )
        self._mtd_dir = options.mtd
        self.mtd = data.Mtd(options.mtd, self.setting) if options.mtd else None
        self._orders: dict[tuple[str, str, int], jax.Array] = {}
        self.pool = 400 if options.small else _POOL

    def problems(self, seed: int) -> Iterator[tuple[str, data.Problem]]:
        """All products, by the name of their set: MTD in its splits, the demo's textures."""
        if self.mtd:
            for split in self.splits:
                yield f"mtd {split}", self.mtd.problem(seed, split)
        for i, problem in enumerate(data.demo(self.setting, seed)[: 1 if self.small else 3]):
            yield f"demo {data.PRODUCTS[i]}", problem

    def validations(self, seed: int) -> Iterator[tuple[str, data.Problem]]:
        """The same without a test image, MTD in the last of its splits."""
        every = data.validations(self.setting, seed, self._mtd_dir, self.splits[-1])
        yield from itertools.islice(every, 1 if self.small else None)

    def order(self, name: str, sampler: str, seed: int, points: jax.Array, ratio: float):
        """The choice of a share of the points, made once for all claims."""
        key, num = (name, sampler, seed), num_atoms(ratio, points)
        if len(self._orders.get(key, ())) < num:
            self._orders[key] = judging.choose(sampler, seed, points, num)
        return self._orders[key][:num]

    @property
    def main_name(self) -> str:
        """What `problems` calls the main problem."""
        return f"mtd {self.splits[-1]}" if self.mtd else f"demo {data.PRODUCTS[0]}"

    def main_problem(self, seed: int) -> data.Problem:
        """MTD's grouped split where there is one."""
        if self.mtd:
            return self.mtd.problem(seed, self.splits[-1])
        return data.demo(self.setting, seed)[0]


def num_atoms(ratio: float, points) -> int:
    """How many atoms a share is; never fewer than the K of a code."""
    return max(10, round(ratio * len(points)))


def pool_of(problem: data.Problem, seed: int, num: int) -> jax.Array:
    """A uniform choice of nominal patches."""
    patches = problem.train.patches
    rows = np.random.default_rng(seed).permutation(len(patches))[:num]
    return jnp.asarray(patches[np.sort(rows)])


def gains(images: data.Images, bank: types.Bank) -> Record:
    """Reconstruction against the nearest atom of the same bank."""
    nearest, affine = (judging.judge(images, found) for found in judging.both_scores(images, bank))
    record = {"AP nearest": nearest["pixel AP"], "AP affine": affine["pixel AP"]}
    return record | {f"gain {name}": affine[name] - nearest[name] for name in affine}


def claim_1(trial: Trial) -> Iterator[Record]:
    """Reconstruction against nearest neighbour: uniform and k-center banks of all patches."""
    for seed in trial.seeds:
        for name, problem in trial.problems(seed):
            points = jnp.asarray(problem.train.patches)
            for sampler in ("k_center", "uniform"):
                order = trial.order(name, sampler, seed, points, _RATIOS[-1])
                for ratio in _RATIOS:
                    bank = judging.bank_of(points, order[: num_atoms(ratio, points)])
                    what = {"data": name, "sampler": sampler, "bank": f"{ratio:.2%}"}
                    yield what | gains(problem.test, bank)


def claim_2(trial: Trial) -> Iterator[Record]:
    """All samplers choose from one pool of nominal patches, whose whole is the full bank."""
    sizes = (20, 40, 80) if trial.small else (20, 50, 100, 200, 500, 1000, 2000, 5000)
    # What these cost grows faster than what the others do: no more than a tenth of the pool.
    costly = ("self_representation", "support_frequency", "k_medoids")
    for seed in trial.seeds:
        problem = trial.main_problem(seed)
        points = pool_of(problem, seed, trial.pool)
        full = gains(problem.test, judging.bank_of(points, jnp.arange(len(points))))
        yield {"sampler": "all of the pool", "atoms": len(points)} | full
        for sampler in judging.SAMPLERS:
            own = [size for size in sizes if size <= 2000 or sampler not in costly]
            more = {"num_candidates": 2 * own[-1]} if sampler == "support_frequency" else {}
            nested = sampler in judging.NESTED
            order = judging.choose(sampler, seed, points, own[-1], **more) if nested else None
            for size in own:
                if nested:
                    chosen = order[:size]
                else:
                    chosen = judging.choose(sampler, seed, points, size)
                record = gains(problem.test, judging.bank_of(points, chosen))
                record["AP affine / full"] = 100 * record["AP affine"] / full["AP affine"]
                yield {"sampler": sampler, "atoms": size} | record


def claim_3(trial: Trial) -> Iterator[Record]:
    """Leaves a mode of normality out of the bank: false alarms in it, at equal detection."""
    for seed in trial.seeds:
        if trial.mtd:
            yield from _left_out_exposures(trial, seed)
        yield from _left_out_modes(trial, seed)


def _left_out_exposures(trial, seed):
    problem = trial.main_problem(seed)
    points = pool_of(problem, seed, 2 * trial.pool)
    num = num_atoms(0.01, problem.train.patches)
    control = judging.bank_of(points, judging.choose("k_center", seed, points, num))
    for exposure in (f"exp{i}" for i in range(1, 7)):
        others = problem.train.take(np.flatnonzero(problem.train.modes != exposure))
        rest = pool_of(data.Problem(others, others), seed, 2 * trial.pool)
        without = judging.bank_of(rest, judging.choose("k_center", seed, rest, num))
        images = trial.mtd.exposure(seed, trial.splits[-1], exposure)
        yield from _alarms("mtd, one exposure", images, control, without)


def _left_out_modes(trial, seed):
    plain, *changes = data.MODES
    for change in changes:
        for problem in data.demo(trial.setting, seed, (plain, change))[: 1 if trial.small else 3]:
            points = jnp.asarray(problem.train.patches)
            num = num_atoms(0.01, points)
            control = judging.bank_of(points, judging.choose("k_center", seed, points, num))
            kept = np.flatnonzero(problem.train.modes == plain)
            rest = jnp.asarray(problem.train.take(kept).patches)
            without = judging.bank_of(rest, judging.choose("k_center", seed, rest, num))
            images = problem.test.take(np.flatnonzero(problem.test.modes == change))
            yield from _alarms(f"demo, {change}", images, control, without)


def _alarms(name, images, control, without):
    defect = judging.covered(images)
    nominal = np.broadcast_to((images.kinds == "good")[:, None], defect.shape)
    for bank_name, bank in (("with the mode", control), ("without", without)):
        nearest, affine = judging.both_scores(images, bank)
        for code, found in (("nearest", nearest), ("affine", affine)):
            record = judging.false_alarms(images, found)
            # How much nearer the code comes than the nearest atom: what it mimics.
            record["nominal residual, % of nearest"] = (
                100 * np.mean(found[nominal]) / np.mean(nearest[nominal])
            )
            record["defect residual, % of nearest"] = (
                100 * np.mean(found[defect]) / np.mean(nearest[defect])
            )
            yield {"left out": name, "bank": bank_name, "code": code} | record


def claim_4(trial: Trial) -> Iterator[Record]:
    """Explicit and implicit subspaces, by the number of vectors that are stored."""
    many, rank = (4, 4) if trial.small else (64, 8)
    wide = 16 if trial.small else 32
    for seed in trial.seeds:
        problem = trial.main_problem(seed)
        points = pool_of(problem, seed, trial.pool)
        weights, key = jnp.ones(len(points)), jax.random.key(seed)
        order = judging.choose("k_center", seed, points, max(many * (rank + 1), wide * 2))
        atoms = points[judging.choose("k_center", seed, points, min(1000, len(points) // 2))]
        learn = partial(
            subspaces.k_subspaces,
            num_subspaces=many,
            rank=rank,
            num_restarts=1,
            num_iterations=15,
        )
        sparse = partial(
            subspaces.sparse_clustering,
            num_subspaces=many,
            rank=rank,
            code=partial(sgfr.omp, sparsity=5),
            num_restarts=3,
        )
        pursue = partial(sgfr.omp, sparsity=5)
        linear = jax.jit(learn)(key, points, weights)
        explicit = {
            f"k-subspaces, linear, {many} x {rank}": (linear, many * rank),
            f"k-subspaces, affine, {many} x {rank}": (
                jax.jit(partial(learn, affine=True))(key, points, weights),
                many * (rank + 1),
            ),
            f"sparse clustering of {len(atoms)} atoms, {many} x {rank}": (
                jax.jit(sparse)(key, atoms, jnp.ones(len(atoms))),
                many * rank,
            ),
        }
        for name, (found, size) in explicit.items():
            project = partial(sgfr.project, rank=rank)
            yield _stored(problem, f"{name}, best subspace", size, found, project)
        yield _stored(problem, "k-subspaces, linear, OMP 5", many * rank, linear, pursue)
        pca = jax.jit(partial(subspaces.pca, rank=wide))(key, points, weights)
        yield _stored(problem, f"PCA {wide}", wide, pca, partial(sgfr.project, rank=wide))
        learned = jax.jit(
            partial(subspaces.dictionary, num_atoms=many * rank, code=pursue, num_steps=500)
        )(key, points, weights)
        yield _stored(problem, "dictionary, OMP 5", many * rank, learned, pursue)
        for sampler in ("uniform", "k_center"):
            for size in sorted({wide, many * rank, many * (rank + 1)}):
                chosen = judging.choose("uniform", seed, points, size)
                chosen = order[:size] if sampler == "k_center" else chosen
                bank = judging.bank_of(points, chosen)
                nearest, affine = judging.both_scores(problem.test, bank)
                what = {"vectors": size}
                yield {"basis": f"{sampler}, nearest"} | what | judging.judge(problem.test, nearest)
                yield (
                    {"basis": f"{sampler}, affine K=10"}
                    | what
                    | judging.judge(problem.test, affine)
                )


def _stored(problem, name, size, found, code):
    bank = types.subspace_bank(found) if isinstance(found, types.Subspaces) else found
    residuals = np.asarray(judging.scores(problem.test, bank, code))
    return {"basis": name, "vectors": size} | judging.judge(problem.test, residuals)


def claim_5(trial: Trial) -> Iterator[Record]:
    """Residuals of nominal patches and of defects against the number of atoms of a code."""
    for seed in trial.seeds:
        problem = trial.main_problem(seed)
        points = jnp.asarray(problem.train.patches)
        bank = judging.bank_of(points, trial.order(trial.main_name, "k_center", seed, points, 0.01))
        yield from _limits(problem, bank)


def _limits(problem, bank):
    keep = np.arange(len(problem.test.kinds))[::2]  # sorted by kind: half of each
    images = problem.test.take(keep)
    coders = {
        f"affine ridge, K={k}": judging.affine(k)
        for k in (1, 2, 5, 10, 20, 50, 100, 200)
        if k <= len(bank.atoms)
    }
    coders |= {
        f"whole bank, ridge {ridge:g}": partial(sgfr.whole_bank_ridge, ridge=ridge)
        for ridge in (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
    }
    defect = judging.covered(images)
    nominal = np.broadcast_to((images.kinds == "good")[:, None], defect.shape)
    for code_name, code in coders.items():
        found = np.asarray(judging.scores(images, bank, code))
        good, bad = np.median(found[nominal]), np.median(found[defect])
        record = {
            "nominal residual": 100 * good,
            "defect residual": 100 * bad,
            "defect / nominal": bad / good,
        }
        yield {"code": code_name} | record | judging.judge(images, found)


def claim_6(trial: Trial) -> Iterator[Record]:
    """Kernel codes against linear ones of the same bank, over a grid of bandwidths."""
    for seed in trial.seeds:
        for name, problem in trial.validations(seed):
            for record in _kernels(trial, f"{name}, validation", problem, seed):
                metrics = [value for value in record.values() if isinstance(value, float)]
                yield record | {"criterion": float(np.mean(metrics))}
    for seed in trial.seeds[:2]:
        for name, problem in trial.problems(seed):
            yield from _kernels(trial, name, problem, seed)


def _kernels(trial, name, problem, seed):
    points = jnp.asarray(problem.train.patches)
    bank = judging.bank_of(points, trial.order(name, "k_center", seed, points, 0.01))
    nearest, linear = judging.both_scores(problem.test, bank)
    what = {"data": name}
    yield what | {"code": "nearest"} | judging.judge(problem.test, nearest)
    yield what | {"code": "affine ridge, linear"} | judging.judge(problem.test, linear)
    # The unit of the bandwidth: the typical distance of a patch to its nearest atom.
    unit = float(np.median(nearest))
    for times in (0.5, 1, 2, 4):
        found = judging.kernel(problem.test, bank, times * unit, 10)
        yield what | {"code": f"kernel, {times:g} x"} | judging.judge(problem.test, found)


CLAIMS = {1: claim_1, 2: claim_2, 3: claim_3, 4: claim_4, 5: claim_5, 6: claim_6}


def summarise(records: list[Record]) -> list[Record]:
    """Means and standard deviations of what differs in nothing but the seed or the product."""
    groups: dict[tuple, list[Record]] = {}
    for record in records:
        key = tuple((k, v) for k, v in record.items() if not isinstance(v, float))
        groups.setdefault(key, []).append(record)
    rows = []
    for key, found in groups.items():
        row: Record = dict(key) | {"runs": len(found)}
        for name, value in found[0].items():
            if isinstance(value, float):
                values = [record[name] for record in found]
                row[name] = (float(np.mean(values)), float(np.std(values, ddof=len(values) > 1)))
        rows.append(row)
    return rows


def table(rows: list[Record]) -> str:
    """Markdown, in the order of the first record of each row."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = [" | ".join(columns), " | ".join("---" for _ in columns)]
    for row in rows:
        lines.append(" | ".join(_cell(row.get(name, ""), row["runs"]) for name in columns))
    return "\n".join(f"| {line} |" for line in lines)


def _cell(value, runs):
    if not isinstance(value, tuple):
        return str(value)
    return f"{value[0]:.1f} ± {value[1]:.1f}" if runs > 1 else f"{value[0]:.1f}"


def main(argv: list[str] | None = None) -> dict[int, list[Record]]:
    """Tries the claims asked for, and returns the rows of their tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0], allow_abbrev=False)
    parser.add_argument("--claims", default="1,2,3,4,5,6", help="which, with commas between")
    parser.add_argument("--seeds", type=int, default=5, help="most; the tables say how many runs")
    parser.add_argument("--splits", default=",".join(_SPLITS),
                        help="of MTD; claims 2 to 5 use the last")  # fmt: skip
    parser.add_argument("--mtd", default=None, help="MTD's directory")
    parser.add_argument("--cache_dir", default=None, help="keeps features here")
    parser.add_argument("--json", default=None, type=report.new_file,
                        help="file for the rows and the records")  # fmt: skip
    parser.add_argument("--small", action="store_true", help="a trial of seconds on the demo")
    options = parser.parse_args(argv)
    numbers, splits = options.claims.split(","), options.splits.split(",")
    if not set(numbers) <= set(map(str, CLAIMS)):
        parser.error(f"--claims={options.claims}: they are 1 to {max(CLAIMS)}, commas between")
    if not set(splits) <= set(_SPLITS):
        parser.error(f"--splits={options.splits}: they are {' and '.join(_SPLITS)}, commas between")
    if options.seeds < 1:
        parser.error(f"--seeds={options.seeds}: there must be one at least")
    trial = Trial(options)
    results: dict[int, list[Record]] = {}
    kept = {}
    for number in map(int, numbers):
        start, claim = time.perf_counter(), CLAIMS[number]
        records: list[Record] = []
        for record in claim(trial):
            records.append({k: float(v) if isinstance(v, np.floating) else v
                            for k, v in record.items()})  # fmt: skip
            results[number] = summarise(records)
            kept[number] = {"rows": results[number], "seconds": time.perf_counter() - start,
                            "records": records}  # fmt: skip
            if options.json:  # at once: whoever stops the script keeps what there is
                options.json.write_text(json.dumps(kept, indent=1))
            print(".", end="", file=sys.stderr, flush=True)
        print(f"\n## Claim {number}: {claim.__doc__}\n\n{table(results[number])}")
        print(f"\n({time.perf_counter() - start:.0f} s)", flush=True)
    return results


if __name__ == "__main__":
    main()
