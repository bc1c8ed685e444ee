"""The devices of a run: which it uses, how they are laid out, and what each of them does.

Embedding and scoring share nothing between images: every process spreads its images over its own
devices. The nominal patches lie on the devices of all processes while a bank is chosen from them.
Where there is one device in all, there is no layout, and programs are compiled by plain `jax.jit`.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from sgfr_jax import sharding, types
from sgfr_jax.commands.flags.checking import ConfigError
from sgfr_jax.commands.host import processes
from sgfr_jax.detector import sampling
from sgfr_jax.detector.services import Report
from sgfr_jax.sharding import DATA

AUTO, ONE = "auto", "1"
# Points that a round of k-center over several devices goes through, and those of each at least.
_POOL, _LEAST_POOL = 2048, 8


class Layout(NamedTuple):
    """The devices of a run that has several."""

    own: Mesh  # of this process; embedding and scoring
    every: Mesh  # of all processes; the nominal patches


def parse(text: str) -> int | None:
    """The devices of each process that `--mesh` asks for; None: all.

    Raises:
      ConfigError: if it is neither `auto` nor a number.
    """
    if text == AUTO:
        return None
    if not re.fullmatch(r"[1-9]\d*", text.strip()):
        raise ConfigError(f"--mesh={text} must be {AUTO}, or a number of devices such as {ONE}")
    return int(text)


def lay_out(text: str) -> Layout | None:
    """The layout that `--mesh` asks for; None where the run has one device.

    Raises:
      ConfigError: if there are too few devices, or processes do not know of each other.
    """
    if jax.process_count() != processes.count():
        raise ConfigError(
            f"JAX sees {jax.process_count()} processes that run together, and the environment does"
            " not say so: add --distributed=always"
        )
    number, devices = parse(text), _by_process()
    fewest = min(map(len, devices.values()))
    if number is not None and number > fewest:
        raise ConfigError(f"--mesh={text} needs {number} devices, and there are {fewest}")
    used = {process: found[: number or fewest] for process, found in devices.items()}
    every = [device for found in used.values() for device in found]
    if len(every) == 1:
        return None
    return Layout(sharding.make_mesh(used[jax.process_index()]), sharding.make_mesh(every))


def _by_process() -> dict[int, list[jax.Device]]:
    """The devices of every process, in the order of the processes."""
    found: dict[int, list[jax.Device]] = {}
    for device in sorted(jax.devices(), key=lambda device: (device.process_index, device.id)):
        found.setdefault(device.process_index, []).append(device)
    return found


def round_up(batch_size: int, layout: Layout | None) -> int:
    """The batch size at which no device of this process is left without images."""
    return batch_size if layout is None else batch_size + -batch_size % layout.own.size


def put(batch: Any, layout: Layout) -> Any:
    """A batch `[B, ...]` of this process's images on its devices, each of which has a part."""
    if len(jax.tree.leaves(batch)[0]) % layout.own.size:
        return jax.device_put(batch)
    return jax.device_put(batch, NamedSharding(layout.own, P(DATA)))


def replicate(tree: Any, layout: Layout) -> Any:
    """The tree whole on every device of this process, wherever it was."""
    return jax.device_put(jax.device_get(tree), NamedSharding(layout.own, P()))


@dataclasses.dataclass(frozen=True)
class Compiler:
    """Compiles `function(state, batch, **static)`, every device of this process on its images."""

    layout: Layout

    def __call__(self, function: Callable, static: Sequence[str] = ()) -> Callable:
        """The compiled function.

        Args:
          function: whose rows `[B, ...]` of the result depend on the same rows of the batch and on
            the state alone.
          static: names of the arguments that are no arrays.
        """
        own = self.layout.own

        @functools.wraps(function)
        def over_devices(state: Any, batch: Any, **bound: Any):
            return sharding.data_parallel(partial(function, **bound), own)(state, batch)

        by_rows = in_whole_parts(jax.jit(over_devices, static_argnames=static), own)

        def call(state: Any, batch: Any, **bound: Any):
            # Where it lies so already, nothing moves.
            return by_rows(jax.device_put(state, NamedSharding(own, P())), batch, **bound)

        return call


def in_whole_parts(compiled: Callable, mesh: Mesh) -> Callable:
    """A compiled `(state, batch)` for batches of any size, whose rows a mesh has in equal parts."""
    parts = mesh.shape[DATA]

    def call(state: Any, batch: Any, **bound: Any):
        num = len(jax.tree.leaves(batch)[0])
        padded = jax.tree.map(lambda x: sharding.pad_rows(x, parts), batch)
        found = compiled(state, jax.device_put(padded, NamedSharding(mesh, P(DATA))), **bound)
        if num % parts == 0:
            return found
        # On the host: to slice them on devices would move rows among these.
        return jax.tree.map(lambda x: x[:num], jax.device_get(found))

    return call


def share(num_images: int, layout: Layout) -> range:
    """Which training images this process embeds: those whose patches its devices will hold."""
    each = _images_each(num_images, layout) * layout.own.size
    start = min(processes.index() * each, num_images)
    return range(start, min(start + each, num_images))


def num_memories(layout: Layout | None) -> int:
    """Over how many memories nominal patches are spread; all CPU devices of a host share one."""
    if layout is None:
        return 1
    return processes.count() if jax.default_backend() == "cpu" else layout.every.size


def _images_each(num_images: int, layout: Layout) -> int:
    """How many training images one device holds the patches of, at most."""
    return -(-num_images // layout.every.size)


def choose(
    key: jax.Array,
    points: np.ndarray,
    weights: np.ndarray,
    shape: tuple[int, int],
    num_atoms: int,
    report: Report,
    *,
    layout: Layout,
) -> types.Bank:
    """The bank that k-center chooses of patches that no device holds all of; whole on the host.

    Args:
      key: consumed.
      points: `[n, D]`, of this process's share of the training images.
      weights: `[N]`, of all processes.
      shape: how many images there are in all, and patches of each.
      num_atoms: `M`.
      report: told how many more atoms there are.
      layout: of the run.
    """
    rows = place([points], layout, shape, points.shape[1])
    start, advance = spread_sampler(layout.every)
    state = start(key, rows, place_weights(weights, rows), num_atoms)
    state = sampling.in_steps(advance, state, rows, num_atoms, report)
    # Of a run's own devices, wherever it was chosen.
    return jax.tree.map(jnp.asarray, jax.device_get(sharding.bank_of(state)))


def place(
    blocks: Iterable[np.ndarray], layout: Layout, shape: tuple[int, int], features: int
) -> jax.Array:
    """Rows on the devices of all processes, `[N + P, D]` with zeros last; no device holds all.

    Args:
      blocks: those of this process's share in order, `[n, D]` at a time.
      layout: of the run.
      shape: how many images there are in all, and rows of each.
      features: `D`.
    """
    num_images, of_each = shape
    each = _images_each(num_images, layout) * of_each
    devices = list(layout.own.devices.flat)
    parts, filled = [], each
    for block in blocks:
        while len(block):
            if filled == each:
                parts.append(np.zeros((each, features), np.float32))
                filled = 0
            some = block[: each - filled]
            parts[-1][filled : filled + len(some)] = some
            filled, block = filled + len(some), block[len(some) :]
            if filled == each:
                parts[-1] = jax.device_put(parts[-1], devices[len(parts) - 1])
    parts += [np.zeros((each, features), np.float32) for _ in devices[len(parts) :]]
    parts = [jax.device_put(part, device) for part, device in zip(parts, devices, strict=True)]
    return jax.make_array_from_single_device_arrays(
        (each * layout.every.size, features), NamedSharding(layout.every, P(DATA)), parts
    )


def place_weights(weights: np.ndarray, rows: jax.Array) -> jax.Array:
    """The weights of rows, `[N]` and known to every process, beside them: 0 for what is padded."""
    padded = np.zeros(rows.shape[0], np.float32)
    padded[: len(weights)] = weights
    beside = NamedSharding(rows.sharding.mesh, P(DATA))
    return jax.make_array_from_callback(padded.shape, beside, lambda index: padded[index])


@functools.lru_cache(1)
def spread_sampler(mesh: Mesh) -> tuple[Callable, Callable]:
    """k-center in two parts, compiled for points that are spread over a mesh."""
    # Every device goes through the pools of all, which together are to be those of one device.
    pool_size = max(_LEAST_POOL, _POOL // mesh.size)

    def start_over_patches(key, points, weights, num_atoms):
        return sharding.k_center_start_over_patches(key, points, weights, num_atoms, mesh=mesh)

    def advance_over_patches(state, points, upto):
        return sharding.k_center_advance_over_patches(
            state, points, upto, mesh=mesh, pool_size=pool_size
        )

    return (
        jax.jit(start_over_patches, static_argnums=3),
        jax.jit(advance_over_patches, donate_argnums=0),
    )
