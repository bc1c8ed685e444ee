"""The method as one value: what is looked at, what becomes of it, and how that is scored.

`Method()` is the default; `Method.fast()` the plain method of one bank. A value is static: it is
frozen, it hashes, and equal values compile once.
"""

import dataclasses
import enum
from typing import Any, Self

from sgfr_jax import samplers
from sgfr_jax.datasets.geometry import Geometry
from sgfr_jax.detector import alternatives
from sgfr_jax.errors import check_type

# What `layers` takes beside names of levels and streams: a bank for each of several levels and
# scales, or the network's default levels in one bank. `geometry` takes the first, too.
AUTO, FAST = "auto", "fast"
# Between the level and the scale of a stream that is named.
AT = "@"
# The atoms of one bank of several; twice as many made no clear difference (docs/results.md).
STREAM_ATOMS = 1000
# The most atoms of one bank of several where squares are large, and their share of its patches.
LARGE_ATOMS, _LARGE_RATIO = 4000, 0.04
# Patches at random that bases of one bank are learned from: hundreds for each of some dozens of
# subspaces, in seconds.
LEARNED_PATCHES = 1 << 14
_RATIO = 0.01
# The fewest atoms that the default ratio means: a percent of one image's patches would be three.
_LEAST_ATOMS = 100


class Stage(enum.Enum):
    """The first stage that a field of `Method` takes part in."""

    EMBED = "embedding of images"
    BANK = "banks of atoms"
    CODE = "codes of patches and blur of maps"
    MAP = "maps of several banks"


def _of(stage: Stage, default: Any) -> Any:
    return dataclasses.field(default=default, metadata={"stage": stage})


@dataclasses.dataclass(frozen=True)
class Method:
    """Everything that a detector depends on, beside its images and its random key.

    Fields that are None are filled in by `settle.settle`, which also checks all of them.
    """

    # A network of `sgfr_jax.backbones`, and its weights; of another network its name.
    backbone: str = _of(Stage.EMBED, "efficientnet_lite0")
    weights: str | None = _of(Stage.EMBED, None)
    # `("auto",)`, `("fast",)`, or names of levels (one bank), or of streams, LEVEL@SCALE.
    layers: tuple[str, ...] = _of(Stage.EMBED, (AUTO,))
    # The side of squares in pixels; None: 256, or 448 for networks of 14-pixel patches.
    image_size: int | None = _of(Stage.EMBED, None)
    # In place of `image_size` where layers are auto and photographs have the pixels for it; None:
    # 384 where no `image_size` is given, and nothing where one is. Where both are equal, squares
    # are large whatever the photographs.
    large_image_size: int | None = _of(Stage.EMBED, None)
    # How images become squares: a kind of `geometry.KINDS`; several joined by +, with banks each;
    # auto: square, and tiles besides where training images are long, or differ in size or shape.
    geometry: str = _of(Stage.EMBED, AUTO)
    crop: float = _of(Stage.EMBED, 0.875)  # the crop's side over the image's shorter side
    # The side of a tile in the image's pixels; None: the median shorter side of training images.
    tile: int | None = _of(Stage.EMBED, None)
    overlap: float = _of(Stage.EMBED, 0.25)  # the least share of a tile that the next one shows
    grid: int | None = _of(Stage.EMBED, None)  # patches per side of one bank; None: middle level's
    unit_norm: bool = _of(Stage.EMBED, True)  # scale every patch to unit norm
    # None: k_center, or random where bases of subspaces are learned.
    sampler: str | None = _of(Stage.BANK, None)
    # Atoms: a share of the nominal patches, or their number; both None: 0.01, or a fixed number of
    # atoms for each of several banks.
    bank_ratio: float | None = _of(Stage.BANK, None)
    bank_size: int | None = _of(Stage.BANK, None)
    subspaces: str = _of(
        Stage.BANK, "implicit"
    )  # what is learned of a bank: `alternatives.LEARNERS`
    num_subspaces: int = _of(Stage.BANK, 32)
    subspace_rank: int = _of(Stage.BANK, 8)
    affine_subspaces: bool = _of(Stage.BANK, False)  # through the mean of their patches
    solver: str = _of(Stage.CODE, "affine_ridge")  # what codes a patch: `alternatives.SOLVERS`
    num_neighbors: int = _of(Stage.CODE, 10)  # K: nearest atoms that one code draws on
    ridge: float | None = _of(Stage.CODE, None)  # relative; None, here and for l1: the solver's own
    sparsity: int = _of(Stage.CODE, 5)  # atoms that OMP chooses, at most
    l1: float | None = _of(Stage.CODE, None)  # relative to the penalty at which codes are zero
    l2: float = _of(Stage.CODE, 1e-3)  # relative
    max_atoms: int = _of(Stage.CODE, 64)  # that sparse codes over the whole bank use, at most
    search: str = _of(Stage.CODE, "exact")  # how nearest atoms are found: `alternatives.SEARCHES`
    sigma: float = _of(Stage.CODE, 4.0)  # blur of the anomaly map, in its pixels
    halo: float = _of(Stage.MAP, 0.2)  # of `maps.halo`, where there are streams
    breadth: float = _of(Stage.MAP, 0.25)  # of `maps.breadth`: streams, or several looks
    image_prior: float = _of(Stage.MAP, 0.4)  # of `maps.image_prior`, likewise

    def __post_init__(self):
        """Takes lists, and texts such as `block4,block10`, as names of layers."""
        layers = self.layers.split(",") if isinstance(self.layers, str) else self.layers
        object.__setattr__(self, "layers", tuple(layers or ()))

    @classmethod
    def fast(cls, **fields: Any) -> Self:
        """The plain method: one bank of the network's default levels, no calibration."""
        return cls(layers=(FAST,), **fields)

    @property
    def has_streams(self) -> bool:
        """Whether every level has a bank of its own, calibrated and weighed: see `streams`."""
        return self.layers == (AUTO,) or any(AT in name for name in self.layers)

    @property
    def one_bank(self) -> bool:
        """Whether all that is seen of images is in one bank."""
        return not self.has_streams and "+" not in self.geometry

    @property
    def geometries(self) -> tuple[Geometry, ...]:
        """The ways in which every image is looked at, where `geometry` names them."""
        kinds = self.geometry.split("+")
        return tuple(Geometry(kind, self.crop, self.tile, self.overlap) for kind in kinds)

    @property
    def tiled(self) -> bool:
        """Whether one of them is through tiles."""
        return "tile" in self.geometry.split("+")

    @property
    def is_large(self) -> bool:
        """Whether squares are large, as photographs have the pixels for it (`resolution`)."""
        return self.image_size is not None and self.image_size == self.large_image_size

    def num_atoms(self, num_patches: int) -> int:
        """The atoms of a bank that is chosen from some number of nominal patches.

        Where bases are learned of the bank: how many patches they are learned from.
        """
        named = self.bank_size is not None or self.bank_ratio is not None
        uniform = self.sampler == "random" and self.subspaces in alternatives.SCALABLE_LEARNERS
        if uniform and not named:
            return min(LEARNED_PATCHES, num_patches)
        if self.has_streams and self.bank_ratio is None:
            usual = STREAM_ATOMS
            # Of few patches a large bank would be most of them, and mimic defects.
            if self.is_large:
                usual = min(LARGE_ATOMS, max(usual, round(_LARGE_RATIO * num_patches)))
            return min(self.bank_size or usual, num_patches)  # coarse levels have few
        if self.bank_size is not None:
            return self.bank_size
        if self.bank_ratio is None:
            least = min(_LEAST_ATOMS, num_patches)
            return max(least, samplers.budget(num_patches, ratio=_RATIO))
        return samplers.budget(num_patches, ratio=self.bank_ratio)

    def only(self, *stages: Stage) -> Self:
        """The method with the defaults of all fields that first take part in other stages."""
        kept = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.metadata["stage"] in stages
        }
        return type(self)(**kept)

    def coding(self, *stages: Stage) -> Self:
        """`only` what codes of patches follow from, and some stages besides."""
        # `project` codes over subspaces of this rank.
        return dataclasses.replace(self.only(Stage.CODE, *stages), subspace_rank=self.subspace_rank)


def given(method: Any) -> Method:
    """The method, the default for None; raises ArgumentError for what is no method."""
    method = Method() if method is None else method
    check_type("method", method, Method, "a `Method`, such as Method() or Method.fast()")
    return method
