"""A method checked against a network, and filled in: every name known, every number in its range.

What only images can tell, such as whether there are patches enough for a bank, is checked later
(`check_patches`).
"""

import dataclasses
import numbers
import typing
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from sgfr_jax import names
from sgfr_jax.datasets.geometry import KINDS as GEOMETRIES
from sgfr_jax.detector import alternatives, streams
from sgfr_jax.detector.method import AT, AUTO, FAST, Method
from sgfr_jax.detector.network import Network
from sgfr_jax.detector.streams import Stream
from sgfr_jax.errors import ArgumentError

# The longest side of the squares that a network sees: larger images have tiles.
MOST_PIXELS = 8192
# In float32 smaller penalties are none, and scores times larger factors may be infinite.
_LEAST, MOST = 1e-12, 10**6
# Tiles smaller than a network's patches show nothing, and there would be millions of them.
_LEAST_TILE = 8
# Below it a blur is none, and its square may not be told from zero.
_LEAST_SIGMA = 1e-3
# The side of squares of photographs that have the pixels for it, where nothing else is asked for.
_LARGE = 384


def settle(method: Method, network: Network, baselines: Iterable[str] = ()) -> Method:
    """The method with all that is left open filled in, after checking every name and range.

    Args:
      method: what was asked for.
      network: that it looks through.
      baselines: solvers that are to score beside the method's own.

    Raises:
      ArgumentError: names the field and says what it may be.
    """
    method = with_sampler(with_types(method))
    check(method)
    method = _with_large_size(_with_size(method, network), network, method.image_size)
    require(method.sigma == 0 or _LEAST_SIGMA <= method.sigma <= method.image_size, "sigma",
             method.sigma, f"0, or between {_LEAST_SIGMA:g} and image_size={method.image_size}"
             " pixels: a wider blur than the map leaves nothing of it")  # fmt: skip
    require(method.grid is None or method.grid <= method.image_size, "grid", method.grid,
             f"at most image_size={method.image_size}: a patch for each pixel")  # fmt: skip
    method = _with_layers(method, network)
    fine_to_coarse = sorted(_strides(method, network))
    if method.image_size < fine_to_coarse[-1]:
        raise ArgumentError(
            f"image_size={method.image_size} is smaller than the network's stride of"
            f" {fine_to_coarse[-1]}: use at least that, better 224 or more"
        )
    _check_subspaces(method, network, baselines)
    if method.has_streams:
        return method
    # Of an even number of layers the finer middle one, as PatchCore's two layers do.
    middle = fine_to_coarse[(len(method.layers) - 1) // 2]
    return dataclasses.replace(method, grid=method.grid or -(-method.image_size // middle))


# What fields of a type take, what they make of it, and what to call it.
_TYPES = {
    bool: ((bool, np.bool_), bool, "True or False"),
    int: (numbers.Integral, int, "a whole number"),
    float: (numbers.Real, float, "a number"),
    str: (str, str, "a text"),
}


def with_types(method: Method) -> Method:
    """The method with numbers of Python's for NumPy's, after checking the type of every field.

    Raises:
      ArgumentError: names the field and says of which type it must be.
    """
    found = {}
    for name, kind in typing.get_type_hints(Method).items():
        value, kinds = getattr(method, name), typing.get_args(kind) or (kind,)
        if name == "layers":
            fine = value and all(isinstance(layer, str) and layer for layer in value)
            require(bool(fine), name, value, "names of levels or streams, or auto or fast")
        elif value is None and type(None) in kinds:
            continue
        else:
            accepted, make, called = _TYPES[kinds[0]]
            mistaken = isinstance(value, bool) and kinds[0] is not bool
            require(isinstance(value, accepted) and not mistaken, name, repr(value), called)
            found[name] = make(value)
    return dataclasses.replace(method, **found)


def with_sampler(method: Method) -> Method:
    """The method with a sampler and a geometry where these are left to other fields."""
    if method.sampler is None:
        # K-center seeks out what is rare: few outliers would turn the bases that are learned of it.
        learned = method.subspaces in alternatives.SUBSPACE_LEARNERS
        method = dataclasses.replace(method, sampler="random" if learned else "k_center")
    if method.geometry == AUTO and not method.has_streams:
        method = dataclasses.replace(method, geometry="square")
    return method


def check(method: Method) -> None:
    """Checks names and ranges, for which no network is needed; errors as of `settle`."""
    _check_names(method)
    _check_ranges(method)


def require(fine: bool, name: str, value: Any, what: str) -> None:
    """Raises ArgumentError for an argument that is not `fine`: it must be `what`."""
    if not fine:
        raise ArgumentError(f"{name}={value} must be {what}")


def check_known(argument: str, what: str, name: str, known: Iterable[str]) -> None:
    """Raises ArgumentError, with the known names and the nearest one, if `name` is not known."""
    known = list(known)
    if name not in known:
        raise ArgumentError(f"`{argument}`: {names.unknown_name(what, name, known)}")


def largest_stride(method: Method, network: Network) -> int:
    """The largest stride of the levels that a settled method looks at, in pixels."""
    return max(_strides(method, network))


def _strides(method: Method, network: Network) -> list[int]:
    return [stride for stream in streams.plan(method, network) for stride in stream.strides]


def _check_names(method: Method) -> None:
    check_known("sampler", "sampler", method.sampler, alternatives.SAMPLERS)
    kinds = () if method.geometry == AUTO else method.geometry.split("+")
    for kind in kinds:
        check_known("geometry", "geometry", kind, (AUTO, *GEOMETRIES))
    require(AUTO not in kinds, "geometry", method.geometry, f"{AUTO} alone, or without it")
    require(len(set(kinds)) == len(kinds), "geometry", method.geometry, "different ones")
    require("crop" not in kinds or len(kinds) == 1, "geometry", method.geometry,
             "without crop, or crop alone: what it shows is another image")  # fmt: skip
    check_known("subspaces", "basis learner", method.subspaces, alternatives.LEARNERS)
    check_known("solver", "solver", method.solver, alternatives.SOLVERS)
    check_known("search", "search", method.search, alternatives.SEARCHES)


def _check_ranges(method: Method) -> None:
    require(method.image_size is None or 0 < method.image_size <= MOST_PIXELS, "image_size",
             method.image_size, f"a number of pixels between 1 and {MOST_PIXELS}")  # fmt: skip
    require(0 < method.crop <= 1, "crop", method.crop,
             "in (0, 1]: the crop's side over the image's shorter side")  # fmt: skip
    require(method.tile is None or _LEAST_TILE <= method.tile <= MOST, "tile", method.tile,
             f"a positive number of the image's pixels, from {_LEAST_TILE} to {MOST}")  # fmt: skip
    require(0 <= method.overlap <= 0.5, "overlap", method.overlap,
             "in [0, 0.5]: the share of a tile that the next one also shows")  # fmt: skip
    require(0 <= method.halo <= 1, "halo", method.halo,
             "in [0, 1]: the share of an image's excess that is taken off its map")  # fmt: skip
    require(0 <= method.breadth <= MOST, "breadth", method.breadth,
             f"between 0 and {MOST}: the share of its own mean added to a map")  # fmt: skip
    require(0 <= method.image_prior <= MOST, "image_prior", method.image_prior,
             f"between 0 and {MOST}, in spreads of nominal maps")  # fmt: skip
    require(method.bank_ratio is None or 0 < method.bank_ratio <= 1, "bank_ratio",
             method.bank_ratio, "in (0, 1]: the bank's share of the nominal patches")  # fmt: skip
    require(method.bank_size is None or method.bank_size > 0, "bank_size", method.bank_size,
             "a positive number of atoms")  # fmt: skip
    require(method.bank_size is None or method.bank_ratio is None, "bank_size", method.bank_size,
             f"left out with bank_ratio={method.bank_ratio}: both say how many atoms"
             )  # fmt: skip
    require(method.num_neighbors > 0, "num_neighbors", method.num_neighbors, "at least 1")
    require(method.ridge is None or _LEAST <= method.ridge <= MOST, "ridge", method.ridge,
             f"between {_LEAST:g} and {MOST}, such as 1e-3")  # fmt: skip
    require(method.sparsity > 0, "sparsity", method.sparsity, "at least 1")
    require(method.l1 is None or _LEAST <= method.l1 < 1, "l1", method.l1,
             f"above 0 and below 1, at which all coefficients are 0; {_LEAST:g} at least"
             )  # fmt: skip
    require(0 <= method.l2 <= MOST, "l2", method.l2, f"between 0 and {MOST}, such as 1e-3")
    require(0 < method.max_atoms <= MOST, "max_atoms", method.max_atoms,
             f"between 1 and {MOST}")  # fmt: skip
    require(method.num_subspaces > 0, "num_subspaces", method.num_subspaces, "at least 1")
    require(method.subspace_rank > 0, "subspace_rank", method.subspace_rank, "at least 1")
    least = 0 if method.has_streams else 1  # a settled method of several banks has 0
    require(method.grid is None or least <= method.grid <= MOST_PIXELS, "grid", method.grid,
             f"between 1 and {MOST_PIXELS}")  # fmt: skip


def _with_size(method: Method, network: Network) -> Method:
    if method.image_size is None:
        return dataclasses.replace(method, image_size=network.image_size)
    _check_multiple("image_size", method.image_size, network)
    return method


def _check_multiple(argument: str, size: int, network: Network) -> None:
    multiple = network.size_multiple
    if size % multiple or size < multiple:
        below = max(multiple, size // multiple * multiple)
        raise ArgumentError(
            f"{argument}={size}: {network.name} takes images with sides that {multiple} divides,"
            f" not {size}: the nearest are {below} and {below + multiple}"
        )


def _with_large_size(method: Method, network: Network, asked: int | None) -> Method:
    """The method with `large_image_size`; `asked` is the `image_size` that was asked for."""
    size, large = method.image_size, method.large_image_size
    if method.layers != (AUTO,):
        require(large is None, "large_image_size", large, f"left out unless layers={AUTO}")
        return method
    if large is None:
        usual = asked is None and size < _LARGE and _LARGE % network.size_multiple == 0
        return dataclasses.replace(method, large_image_size=_LARGE if usual else None)
    _check_multiple("large_image_size", large, network)
    require(size <= large <= MOST_PIXELS, "large_image_size", large,
             f"between image_size={size} and {MOST_PIXELS}")  # fmt: skip
    return method


def _with_layers(method: Method, network: Network) -> Method:
    shown = ",".join(method.layers)
    if AUTO in method.layers or FAST in method.layers:
        require(len(method.layers) == 1, "layers", shown,
                 f"{AUTO} or {FAST} alone, or names of levels or streams")  # fmt: skip
    if method.has_streams:
        layers = method.layers if method.layers == (AUTO,) else _named_streams(method, network)
        return dataclasses.replace(method, layers=layers, grid=0)
    layers = network.default_levels if method.layers == (FAST,) else tuple(method.layers)
    for name in layers:
        check_known("layers", f"level of {network.name}", name, network.strides)
    require(len(set(layers)) == len(layers), "layers", shown, "each named once")
    return dataclasses.replace(method, layers=layers)


def _named_streams(method: Method, network: Network) -> tuple[str, ...]:
    """The names of a method's streams, checked, in the order of `streams.plan`."""
    require(all(AT in name for name in method.layers), "layers", ",".join(method.layers),
             "all LEVEL@SCALE, each with a bank of its own, or all names of levels, which share"
             " one bank and its grid: no detector has both")  # fmt: skip
    named: dict[Stream, str] = {}
    for name in method.layers:
        try:
            level, scale = streams.parse(name)
        except ValueError as error:
            raise ArgumentError(f"layers={name}: {error}") from error
        check_known("layers", f"level of {network.name}", level, network.strides)
        side, stride = scale * method.image_size, network.strides[level]
        require(side <= MOST_PIXELS, "layers", name,
                 f"of a smaller scale: at {side:g} pixels a side squares have more than"
                 f" {MOST_PIXELS}")  # fmt: skip
        require(side >= stride, "layers", name,
                 f"of a larger scale: at {side:g} pixels a side images are smaller than the level's"
                 f" stride of {stride}")  # fmt: skip
        stream = streams.make(network, method.image_size, level, scale)
        if stream in named:
            raise ArgumentError(
                f"layers={name} is the same stream as {named[stream]} (both are"
                f" {stream.image_size} pixels a side); name one of them"
            )
        named[stream] = f"{level}{AT}{scale:g}"
    return tuple(named[stream] for stream in streams.plan(method, network))


def _check_subspaces(method: Method, network: Network, baselines: Iterable[str]) -> None:
    """Checks that the basis learner fits the solvers, the sampler and the features."""
    learner = method.subspaces
    if learner not in alternatives.SUBSPACE_LEARNERS:
        for argument, solvers in (("solver", (method.solver,)), ("baseline", tuple(baselines))):
            if "project" in solvers:
                known = ", or ".join(alternatives.SUBSPACE_LEARNERS)
                raise ArgumentError(
                    f"{argument}=project codes over learned subspaces, and subspaces={learner} has"
                    f" none: add subspaces={known}"
                )
        return
    widths = [stream.width for stream in streams.plan(method, network)]
    require(method.subspace_rank < min(widths), "subspace_rank", method.subspace_rank,
            f"below {min(widths)}, the features of a patch, or nothing would be left of one"
            )  # fmt: skip


def check_sizes(
    method: Method, network: Network, num_train: Mapping[str, int], baselines: Iterable[str] = ()
) -> None:
    """Checks that every category has patches enough for the bank, and the bank enough for K.

    Args:
      method: from `settle`.
      network: that it looks through.
      num_train: category to its number of training images.
      baselines: solvers that score beside the method's own.

    Raises:
      ArgumentError: names the category, the field and the sizes.
    """
    if method.geometry == "tile":  # the images' sizes say how many there are
        return
    each = coarsest_grid(method, network) ** 2
    num_nominal = {category: num * each for category, num in num_train.items()}
    check_patches(method, num_nominal, baselines)


def coarsest_grid(method: Method, network: Network) -> int:
    """The patches per side of the bank that has the fewest."""
    return min(stream.grid for stream in streams.plan(method, network))


def check_patches(
    method: Method, num_nominal: Mapping[str, int], baselines: Iterable[str] = ()
) -> None:
    """As `check_sizes`, where it is known how many patches show an image.

    Args:
      method: from `settle`.
      num_nominal: category to its number of nominal patches, of `coarsest_grid`.
      baselines: solvers that score beside the method's own.
    """
    for category, num_patches in num_nominal.items():
        num_atoms = method.num_atoms(num_patches)
        where = f"category {category} has {num_patches} nominal patches"
        if num_atoms > num_patches:
            raise ArgumentError(f"bank_size={num_atoms}, but {where}: use at most that many")
        _check_bank(method, num_atoms, where, (method.solver, *baselines))


def _check_bank(method: Method, num_sampled: int, where: str, solvers: Iterable[str]) -> None:
    """Checks that the sampled atoms are enough for the learner, and its bank for the solvers."""
    num_atoms, of_patches = num_sampled, "`bank_ratio` or `bank_size`"
    bank, remedy = f"a bank of {num_atoms} atoms", of_patches
    if method.subspaces in alternatives.SUBSPACE_LEARNERS:
        several = method.subspaces in alternatives.CLUSTERING_LEARNERS
        num_subspaces = method.num_subspaces if several else 1
        fields = f"subspace_rank={method.subspace_rank}"
        if several:
            fields = f"num_subspaces={method.num_subspaces} times {fields}"
        if num_subspaces * method.subspace_rank > num_sampled:
            raise ArgumentError(
                f"{fields} is more than the bank's {num_sampled} atoms ({where}):"
                f" lower it, or raise {of_patches}"
            )
        num_atoms = num_subspaces * (method.subspace_rank + method.affine_subspaces)
        bank, remedy = f"{num_atoms} atoms of subspaces", fields.replace(" times ", " or ")
    for solver in solvers:
        field = alternatives.SOLVERS[solver].atoms
        if field is not None and getattr(method, field) > num_atoms:
            raise ArgumentError(
                f"{field}={getattr(method, field)}, but {where} and so {bank}:"
                f" lower `{field}`, or raise {remedy}"
            )
