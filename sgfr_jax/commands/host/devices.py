"""The devices of a run: which it uses, how they are laid out, and what each of them does.

Embedding and scoring share nothing between images: every process spreads its images over its own
devices. The nominal patches lie on the devices of all processes while a bank is chosen from them.
Where there is one device in all, there is no layout, and programs are those of plain `jax.jit`.
"""

import functools
import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from sgfr_jax import sharding, types
from sgfr_jax.commands.flags.config import Config
from sgfr_jax.commands.host import memory, processes
from sgfr_jax.detector import choices
from sgfr_jax.detector.choices import ConfigError
from sgfr_jax.sharding import ATOMS, DATA

AUTO, ONE = "auto", "1"


class Layout(NamedTuple):
    """The devices of a run that has several."""

    own: Mesh  # of this process; embedding and scoring
    every: Mesh  # of all processes; the nominal patches
    parts: int | None  # that a bank is split into; None: as few as fit


class Rows(NamedTuple):
    """`N` rows that lie on the devices of all processes, one part after the other."""

    padded: jax.Array  # [N + P, D] float32; zeros after the `N` rows


def parse(text: str) -> tuple[int | None, int | None]:
    """The devices of each process that `--mesh` asks for, and the parts of a bank.

    Args:
      text: `auto`; a number of devices; or `data=4,atoms=2`, devices for different images times
        devices for different atoms.

    Returns:
      Two numbers, each None where it is left to the run.

    Raises:
      ConfigError: if it is none of these.
    """
    if text == AUTO:
        return None, None
    found = re.fullmatch(r"([1-9]\d*)|data=([1-9]\d*)(?:,atoms=([1-9]\d*))?", text.replace(" ", ""))
    if not found:
        raise ConfigError(
            f"--mesh={text} must be {AUTO}, a number of devices such as {ONE}, or such as"
            " data=4,atoms=2"
        )
    number, data, atoms = (int(group) if group else None for group in found.groups())
    return (number, None) if number else (data * (atoms or 1), atoms or 1)


def lay_out(text: str, config: Config) -> Layout | None:
    """The layout that `--mesh` asks for; None where the run has one device.

    Raises:
      ConfigError: if there are not so many devices, the configuration needs whole banks, or several
        processes cannot do it.
    """
    if config.sampler == choices.STREAMING and processes.count() > 1:
        raise ConfigError(
            f"--sampler={config.sampler} sees the patches one after the other, in one process:"
            " k_center spreads them over all"
        )
    if jax.process_count() != processes.count():
        raise ConfigError(
            f"JAX sees {jax.process_count()} processes that run together, and the environment does"
            " not say so: add --distributed=always"
        )
    number, parts = parse(text)
    devices = _by_process()
    fewest = min(map(len, devices.values()))
    if number is not None and number > fewest:
        raise ConfigError(f"--mesh={text} needs {number} devices, and there are {fewest}")
    if parts is not None and parts > 1 and (why := _needs_whole_bank(config)):
        raise ConfigError(f"--mesh={text}: {why}, so its banks cannot be split; leave atoms out")
    used = {process: found[: number or fewest] for process, found in devices.items()}
    every = [device for found in used.values() for device in found]
    if len(every) == 1:
        return None
    own = used[jax.process_index()]
    return Layout(sharding.make_mesh(own), sharding.make_mesh(every), parts)


def _by_process() -> dict[int, list[jax.Device]]:
    """The devices of every process, in the order of the processes."""
    found: dict[int, list[jax.Device]] = {}
    for device in sorted(jax.devices(), key=lambda device: (device.process_index, device.id)):
        found.setdefault(device.process_index, []).append(device)
    return found


def _needs_whole_bank(config: Config) -> str | None:
    """Why the banks of a configuration cannot be split over devices; None: they can."""
    if config.has_streams:
        return f"--layers={','.join(config.layers)} has a small bank for every level"
    for solver in config.solvers:
        if solver not in choices.LOCAL_SOLVERS:
            return f"{solver} codes over the whole bank"
    return None if config.search == "exact" else f"--search={config.search} ranks the whole bank"


def round_up(batch_size: int, layout: Layout | None) -> int:
    """The batch size at which no device of this process is left without images."""
    return batch_size if layout is None else batch_size + -batch_size % layout.own.size


def put(batch: Any, layout: Layout | None) -> Any:
    """A batch `[B, ...]` of this process's images on its devices, each of which has a part."""
    if layout is None or len(jax.tree.leaves(batch)[0]) % layout.own.size:
        return jax.device_put(batch)
    return jax.device_put(batch, NamedSharding(layout.own, P(DATA)))


def replicate(tree: Any, layout: Layout | None) -> Any:
    """The tree whole on every device of this process, wherever it was."""
    if layout is None:
        return tree
    return jax.device_put(jax.device_get(tree), NamedSharding(layout.own, P()))


def spread(function: Callable, layout: Layout | None, static: Sequence[str] = ()) -> Callable:
    """`function(state, batch, **static)` compiled, every device of this process on its images.

    Args:
      function: whose rows `[B, ...]` of the result depend on the same rows of the batch and on the
        state alone.
      layout: None compiles for one device.
      static: names of the arguments that are no arrays.
    """
    if layout is None:
        return jax.jit(function, static_argnames=static)

    @functools.wraps(function)
    def over_devices(state: Any, batch: Any, **bound: Any):
        return sharding.data_parallel(partial(function, **bound), layout.own)(state, batch)

    by_rows = in_whole_parts(jax.jit(over_devices, static_argnames=static), layout.own)

    def call(state: Any, batch: Any, **bound: Any):
        # Where it lies so already, nothing moves.
        return by_rows(jax.device_put(state, NamedSharding(layout.own, P())), batch, **bound)

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


def is_spread(config: Config, layout: Layout | None) -> bool:
    """Whether nominal patches lie on all devices while a bank is chosen: k-center alone can."""
    return layout is not None and config.sampler == "k_center" and config.subspaces != "dictionary"


def num_memories(config: Config, layout: Layout | None) -> int:
    """Over how many memories nominal patches are spread; all CPU devices of a host share one."""
    if not is_spread(config, layout):
        return 1
    return processes.count() if jax.default_backend() == "cpu" else layout.every.size


def share(num_images: int, layout: Layout | None) -> range:
    """Which training images this process embeds: those whose patches its devices will hold."""
    if layout is None:
        return range(num_images)
    each = _images_each(num_images, layout) * layout.own.size
    start = min(processes.index() * each, num_images)
    return range(start, min(start + each, num_images))


def _images_each(num_images: int, layout: Layout) -> int:
    """How many training images one device holds the patches of, at most."""
    return -(-num_images // layout.every.size)


def place(
    blocks: Iterable[np.ndarray], layout: Layout, shape: tuple[int, int], features: int
) -> Rows:
    """Rows on the devices of all processes; no device holds all of them.

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
    return Rows(
        jax.make_array_from_single_device_arrays(
            (each * layout.every.size, features), NamedSharding(layout.every, P(DATA)), parts
        )
    )


def place_weights(weights: np.ndarray, points: Rows) -> jax.Array:
    """The weights of rows, `[N]` and known to every process, beside them: 0 for what is padded."""
    padded = np.zeros(points.padded.shape[0], np.float32)
    padded[: len(weights)] = weights
    beside = NamedSharding(points.padded.sharding.mesh, P(DATA))
    return jax.make_array_from_callback(padded.shape, beside, lambda index: padded[index])


def place_bank(
    bank: types.Bank, config: Config, layout: Layout | None, chunk_size: int
) -> types.Bank:
    """The bank where it scores: whole on every device of this process, or split over its devices.

    It is split if the layout says so, or if no device has room for it and for the closeness of a
    chunk of patches to all atoms.
    """
    if layout is None:
        return bank
    bank = jax.device_get(bank)
    parts = layout.parts or _fewest_parts(bank, config, layout, chunk_size)
    if parts == 1:
        return replicate(bank, layout)
    padded = jax.tree.map(lambda x: sharding.pad_rows(x, parts), bank)
    return jax.device_put(padded, NamedSharding(_split(layout, parts), P(ATOMS)))


def bank_mesh(bank: types.Bank, layout: Layout) -> Mesh:
    """The mesh that a bank from `place_bank` lies on; its atoms axis says into how many parts."""
    placed = getattr(bank.atoms, "sharding", None)
    return placed.mesh if isinstance(placed, NamedSharding) else layout.own


def _fewest_parts(bank: types.Bank, config: Config, layout: Layout, chunk_size: int) -> int:
    if _needs_whole_bank(config):
        return 1
    num_atoms, features = bank.atoms.shape
    need = 4 * num_atoms * (features + chunk_size)
    sizes = [n for n in range(1, layout.own.size + 1) if layout.own.size % n == 0]
    return next((n for n in sizes if need / n <= memory.available()), sizes[-1])


def _split(layout: Layout, parts: int) -> Mesh:
    return sharding.make_mesh(list(layout.own.devices.flat), num_atoms_shards=parts)
