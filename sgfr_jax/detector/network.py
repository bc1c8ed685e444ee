"""A network as the method sees it: named levels, each with a stride and a width, and what embeds.

One of the package's own by its name, with pretrained weights (`ours`), or anybody's (`make`).
"""

import dataclasses
import functools
import numbers
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Self

import jax

from sgfr_jax import names
from sgfr_jax.backbones.architectures import ARCHITECTURES
from sgfr_jax.errors import ArgumentError, check_type

# `(state, images [B, S, S, 3] of uint8 or float in 0..255) -> {level: [B, h, w, D]}`, with
# `h = w = ceil(S / stride)`: a pure function of arrays that hashes, as every function does.
Embed = Callable[[Any, jax.Array], Mapping[str, jax.Array]]
_SIZE = 256
# Sides of images that a network with patches sees by default, in patches.
_PATCHES = 32


class Level(NamedTuple):
    """A feature map of a network."""

    name: str
    stride: int  # pixels of the image per feature
    width: int  # features


class Loaded(NamedTuple):
    """A network in memory."""

    embed: Embed
    state: Any  # a pytree of arrays: its weights
    without_loops: Embed | None = None  # the same function where `embed` has loops over images


@dataclasses.dataclass(frozen=True)
class Network:
    """A pretrained network, which is loaded when the first image is embedded."""

    name: str
    levels: tuple[Level, ...]  # from shallow to deep
    default_levels: tuple[str, ...]  # that one bank sees together
    stream_levels: tuple[str, ...]  # that have a bank each
    load: Callable[[tuple[str, ...]], Loaded]  # of the names of the levels that are wanted
    digest: str = ""  # of the weights: what tells two networks of one name apart
    size_multiple: int = 1  # divides the sides of every image

    @property
    def strides(self) -> dict[str, int]:
        """Pixels of the image per feature, by level."""
        return {level.name: level.stride for level in self.levels}

    @property
    def widths(self) -> dict[str, int]:
        """Features, by level."""
        return {level.name: level.width for level in self.levels}

    @property
    def image_size(self) -> int:
        """The side of images that suits it by default."""
        return _PATCHES * self.size_multiple if self.size_multiple > 1 else _SIZE


def make(
    embed: Embed,
    *,
    strides: Mapping[str, int],
    widths: Mapping[str, int],
    state: Any = (),
    name: str = "network",
    default_levels: Sequence[str] | None = None,
    stream_levels: Sequence[str] | None = None,
    size_multiple: int = 1,
    digest: str = "",
) -> Network:
    """Anybody's network.

    Args:
      embed: `(state, images [B, S, S, 3]) -> {level: [B, h, w, D]}` in float32, a pure function. It
        reads the number of images as `images.shape[0]`, which is symbolic where it is exported.
      strides: pixels of the image per feature of each level, from the shallow level to the deep.
      widths: features `D` of each level.
      state: the weights, a pytree of arrays, which `embed` takes first.
      name: how it is called in what is saved.
      default_levels: that one bank sees together; None: all.
      stream_levels: that have a bank each by default; None: all.
      size_multiple: what divides the sides of every image, as a transformer's patch must.
      digest: what tells these weights apart from others, if a saved detector should check it.

    Raises:
      ArgumentError: if an argument is of another type, strides and widths are not of the same
        levels, or a level is not known.
    """
    check_type("embed", embed, Callable, "a function of the state and the images")
    for what, sizes in (("strides", strides), ("widths", widths)):
        check_type(what, sizes, Mapping, "a mapping of the name of each level to a number")
    check_type("name", name, str, "a text")
    check_type("digest", digest, str, "a text, such as a checksum of the weights; or left out")
    if not isinstance(size_multiple, numbers.Integral) or size_multiple < 1:
        raise ArgumentError(f"size_multiple={size_multiple!r} must be a whole number, from 1")
    if set(strides) != set(widths) or not strides:
        raise ArgumentError(
            f"strides={list(strides)} and widths={list(widths)} must name the same levels, one at"
            " least"
        )
    for level in strides:
        if not isinstance(level, str) or not level or "@" in level or level in ("auto", "fast"):
            raise ArgumentError(
                f"strides={dict(strides)}: {level!r} must be a text without @, and not auto or fast"
            )
    for what, sizes in (("strides", strides), ("widths", widths)):
        for level, size in sizes.items():
            if not isinstance(size, numbers.Integral) or size < 1:
                raise ArgumentError(
                    f"{what}={dict(sizes)}: {level} must have a whole number, from 1"
                )
    known = tuple(Level(level, int(strides[level]), int(widths[level])) for level in strides)
    chosen = []
    for what, wanted in (("default_levels", default_levels), ("stream_levels", stream_levels)):
        wanted = (wanted,) if isinstance(wanted, str) else wanted
        found = tuple(strides) if wanted is None else tuple(wanted)
        if not found:
            raise ArgumentError(f"{what}={wanted!r} must name a level at least, or be left out")
        for level in found:
            if level not in strides:
                unknown = names.unknown_name(f"level of {name}", level, strides)
                raise ArgumentError(f"{what}={list(found)}: {unknown}")
        chosen.append(found)
    load = _InMemory(Loaded(embed, state))
    return Network(name, known, *chosen, load, digest, int(size_multiple))


@dataclasses.dataclass(frozen=True, eq=False)
class _InMemory:
    """Gives a network that is loaded already; it can be pickled where the network can."""

    loaded: Loaded

    def __call__(self, levels: tuple[str, ...]) -> Loaded:
        return self.loaded

    def __deepcopy__(self, memo: dict) -> Self:
        return self  # a copy would be another network, for which all is compiled again


@dataclasses.dataclass(frozen=True)
class _Ours:
    """Loads a network of `sgfr_jax.backbones`."""

    name: str
    weights: str | None
    digest: str = ""

    def __call__(self, levels: tuple[str, ...]) -> Loaded:
        return _load(self, levels)


# One in memory: who asks for the same one again, as one candidate after the other does, is to find
# the programs that were compiled for it.
@functools.lru_cache(1)
def _load(ours: _Ours, levels: tuple[str, ...]) -> Loaded:
    from sgfr_jax import backbones

    found = backbones.load(ours.name, ours.weights, levels)
    return Loaded(found.embed, found.state, functools.partial(found.embed, batched=True))


def given(network: Any) -> "Network":
    """The network, after checking that it is one; raises ArgumentError otherwise."""
    check_type("network", network, Network, "a name of ours, or what `make_network` returns")
    return network


def ours(name: str, weights: str | None = None, *, digest: str = "") -> Network:
    """A network of `sgfr_jax.backbones`, such as `efficientnet_lite0`.

    Args:
      name: of `backbones.ARCHITECTURES`.
      weights: a file of weights, as of `backbones.load`; None: those of its package.
      digest: of the weights, from `backbones.weights_digest`; empty: found out.

    Raises:
      ArgumentError: if the name is not known.
      WeightsError: if the weights cannot be found.
    """
    from sgfr_jax import backbones

    description = describe(name)
    digest = digest or backbones.weights_digest(name, weights)
    return dataclasses.replace(description, load=_Ours(name, weights, digest), digest=digest)


def describe(name: str) -> Network:
    """The levels of a network of ours, without its weights; errors as of `ours`."""
    if name not in ARCHITECTURES:
        raise ArgumentError(f"`backbone`: {names.unknown_name('backbone', name, ARCHITECTURES)}")
    of = ARCHITECTURES[name]
    levels = tuple(Level(level, of.strides[level], of.widths[level]) for level in of.levels)
    return Network(
        name, levels, of.default_levels, of.stream_levels, _Ours(name, None),
        size_multiple=of.size_multiple,
    )  # fmt: skip
