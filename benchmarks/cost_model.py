"""What the stages of the plain method cost, as functions of their sizes, and the least time for it.

Letters: `B` images of `S x S` pixels, `h x h` patches each, `N` patches in all, `D` features, `M`
atoms, `K` neighbours, `P` devices; `n = N / P`. Costs are of one device. Traffic is what must come
from or go to memory when only what one operation leaves to the next is written; everything is
float32. `tests/benchmarks/test_cost_model.py` compares the counts with those of compiled programs.
"""

from collections.abc import Sequence
from typing import NamedTuple

_FLOAT = 4  # bytes
# The pools of `sharding.k_center_over_patches`, of each device, and of `samplers.k_center_advance`.
POOL, ALONE = 256, 2048
BLOCK = 128
# Targets that an accelerator codes at a time: `sgfr_jax.detector.stages.ACCELERATOR_CHUNK`.
_CHUNK = 8192
# As `sgfr_jax.detector.sampling.STREAM_PATCHES`.
_STREAM_PATCHES = 1 << 16
# Operations on each entry of points that are put in a frame (`sgfr_jax.frames`), and of supports
# that are put in units of their own.
_FRAME, _UNITS = 15, 10


class Cost(NamedTuple):
    """Of one device."""

    flops: float = 0.0  # multiplications and additions
    bytes: float = 0.0  # to and from its memory
    gathered: float = 0.0  # bytes that all-gathers leave on it, its own among them
    reduced: float = 0.0  # bytes that all-reduces leave on it
    collectives: float = 0.0  # how many there are
    steps: float = 0.0  # loop iterations that wait for each other
    transferred: float = 0.0  # bytes between the host's memory and its own

    def plus(self, other: "Cost") -> "Cost":
        """Both, one after the other."""
        return Cost(*(a + b for a, b in zip(self, other, strict=True)))

    def times(self, number: float) -> "Cost":
        """So many of it."""
        return Cost(*(number * a for a in self))


class Device(NamedTuple):
    """What a device reaches at best, and the host's share that feeds it."""

    name: str
    flops: float  # per second, in float32 products (`Precision.HIGHEST`)
    bandwidth: float  # bytes per second of its memory
    memory: float  # bytes
    link: float  # bytes per second that it receives from other devices
    transfer: float  # bytes per second from its host
    threads: int  # of the host, for each device
    step: float  # seconds that an iteration of a loop takes at least
    collective: float  # seconds that a collective takes at least


class Level(NamedTuple):
    """A level of a network."""

    side: int
    width: int


def embed(
    images: float,
    *,
    flops: float,
    weights: float,
    levels: Sequence[Level],
    grid: int,
    size: int,
    batch: int = 16,
) -> Cost:
    """Images to unit-norm patches.

    Args:
      images: `B / P`.
      flops: of the network, an image.
      weights: numbers in the network; read once a batch.
      levels: that are merged.
      grid: `h`.
      size: `S`.
      batch: images that the network sees at a time.
    """
    width = sum(level.width for level in levels)
    merging = sum(2 * grid * level.side * (level.side + grid) * level.width for level in levels)
    # Squares, their sum, and the division.
    norms = 4 * grid**2 * width
    written = sum(level.side**2 * level.width for level in levels)
    traffic = 3 * size**2 + _FLOAT * (weights / batch + 2 * written + 2 * grid**2 * width)
    return Cost(flops + merging + norms, traffic, transferred=3 * size**2).times(images)


def k_center(
    points: float,
    features: int,
    atoms: int,
    *,
    rounds: float,
    devices: int = 1,
    pool: int = POOL,
    block: int = BLOCK,
) -> Cost:
    """The exact sampler: `sharding.k_center_over_patches`, or its likeness on one device.

    A round chooses from the pool for as long as that is sure to be right; every choice is alike on
    all devices, and over all `P pool` points. Then this device's points learn of the choices, in
    products with `block` of them: at most `M / block + rounds`, as the last of a round is not full.

    Args:
      points: `N`.
      features: `D`.
      atoms: `M`.
      rounds: how many there are; a matter of the data, see `benchmarks.scaling`.
      devices: `P`.
      pool: points that each device offers.
      block: choices that one product covers.
    """
    own, pooled = points / devices, pool * devices
    choose = Cost(2 * pooled * features, _FLOAT * pooled * features, steps=1)
    traffic = _FLOAT * own * (features + 2 * block + 2)
    learn = Cost(2 * own * features * block, traffic, steps=1)
    found = choose.times(atoms).plus(learn.times(atoms / block + rounds))
    return found if devices == 1 else found.plus(offers(features, devices, pool).times(rounds))


def offers(features: int, devices: int, pool: int = POOL) -> Cost:
    """The collectives of one round of `k_center`: values, points and indices; two numbers."""
    gathered = _FLOAT * devices * pool * (features + 2)
    return Cost(gathered=gathered, reduced=2 * _FLOAT, collectives=5)


def k_center_program(
    points: float, features: int, *, devices: int, pool: int = POOL, block: int = BLOCK
) -> Cost:
    """What the compiled program of `k_center` has, in which the body of each loop stands once.

    Beside a round of one choice and one product: the points in their frame, the first choice,
    offered by every device, and the distances to it.
    """
    own = points / devices
    round_ = k_center(
        points, features, 1, rounds=1 - 1 / block, devices=devices, pool=pool, block=block
    )  # fmt: skip
    first = offers(features, devices, 1)._replace(flops=(4 + _FRAME) * own * features)
    if devices > 1:  # the frame's origin and sizes
        first = first.plus(Cost(reduced=_FLOAT * (features + 3), collectives=2))
    return round_._replace(gathered=0, reduced=0).plus(offers(features, devices, pool)).plus(first)


def stream(points: float, features: int, atoms: int, *, rounds: float) -> Cost:
    """`sgfr_jax.streaming` on one device: a `k_center` of every block and the atoms so far."""
    block = max(_STREAM_PATCHES, 3 * atoms)
    fold = k_center(block + atoms, features, atoms, rounds=rounds, pool=ALONE)
    return fold.times(points / block)


def code(targets: float, features: int, atoms: int, neighbors: int) -> Cost:
    """Patches to residual norms: exact search and affine ridge.

    Args:
      targets: `N / P`.
      features: `D`.
      atoms: `M`.
      neighbors: `K`.
    """
    search = 2 * atoms * features + atoms
    # Differences, their Gram matrix, its factor and two triangular solves, the residual.
    solve = neighbors * features + 2 * neighbors**2 * features
    solve += neighbors**3 / 3 + 2 * neighbors**2
    residual = 2 * neighbors * features + 3 * features
    bank = atoms * features / _CHUNK
    # The closeness to all atoms is written and read; the support read, written and read.
    traffic = _FLOAT * (features + bank + 2 * atoms + 3 * neighbors * features)
    # Supports are put in units of their own; the bank, once for a chunk, in a frame.
    units = _UNITS * neighbors * features
    frames = Cost(_FRAME * atoms * features).times(max(1, targets / _CHUNK))
    return Cost(search + units + solve + residual, traffic).times(targets).plus(frames)


def code_over_atoms(
    targets: float, features: int, atoms: int, neighbors: int, *, parts: int
) -> Cost:
    """`sharding.score_over_atoms`: every part searches its own atoms, all solve.

    Args:
      targets: of one device, `N` over the splits of the data.
      features: `D`.
      atoms: `M`.
      neighbors: `K`, at most `M / parts`.
      parts: that the atoms are split into.
    """
    own = code(targets, features, atoms / parts, neighbors)
    # Closeness to the atoms that each part found, and the sum in which all but one are zeros.
    return own._replace(
        flops=own.flops + 11 * neighbors * features * targets,
        gathered=_FLOAT * targets * parts * neighbors,
        reduced=_FLOAT * targets * neighbors * features,
        collectives=2,
    )


def maps(images: float, *, grid: int, size: int) -> Cost:
    """Scores to maps, which go to the host, and image scores."""
    # Image scores take the largest value of a map, and look for NaN.
    flops = 2 * size * grid**2 + 2 * size**2 * grid + 3 * size**2
    traffic = _FLOAT * (grid**2 + 2 * size * grid + 2 * size**2)
    return Cost(flops, traffic, transferred=_FLOAT * size**2).times(images)


def seconds(cost: Cost, device: Device, devices: int = 1) -> float:
    """The least time: of arithmetic or of traffic, then what is waited for.

    A ring of `P` devices passes `(P - 1) / P` of what it gathers through every device, and twice
    that of what it reduces.
    """
    others = (devices - 1) / devices
    received = others * (cost.gathered + 2 * cost.reduced)
    return (
        max(cost.flops / device.flops, cost.bytes / device.bandwidth)
        + cost.steps * device.step
        + cost.collectives * device.collective
        + received / device.link
        + cost.transferred / device.transfer
    )
