"""Images of any number and size, scored by a model a few at a time."""

import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.assembly import Whole
from experiments.choices import ConfigError
from sgfr_jax.datasets import DatasetError, Example, formats, images, listing
from sgfr_jax.datasets.paths import named

_WILD = frozenset("*?[")
# Pixels of the images that are held at once, as their files say; more than that only of one image.
_PIXELS = 1 << 26
# Of images that a list names again.
_SHOWN = 3


class Source(NamedTuple):
    """An image file."""

    path: Path
    name: str  # unique; its POSIX path below the directory that holds all of them


class Predicted(NamedTuple):
    """An image and what a model makes of it."""

    source: Source
    image: np.ndarray  # uint8 [H, W] or [H, W, 3], upright
    anomaly_map: np.ndarray  # float32 [h, w], of the whole image at any size
    score: float
    found: Any = None  # what `score` gave, with all else that it says


class Unread(NamedTuple):
    """An image that cannot be scored."""

    source: Source
    problem: str


def find(text: str, without: Sequence[Path] = ()) -> list[Source]:
    """The images that `--images` names, sorted; those of a list in its order. Each counts once.

    Args:
      text: an image; a directory, of which all images count; a pattern with `*`, `?`, `[]` and
        `**`; or a text file with a path in each line, relative to the file's directory.
      without: directories of which nothing counts for a directory or a pattern, such as what an
        earlier call has drawn (`predictions.drawn`).

    Raises:
      ConfigError: if there is no image.
    """
    path = Path(text).expanduser()
    if path.is_dir():
        paths, root = _outside(without, listing.image_files(path)), path
    elif path.is_file():
        paths = [path] if listing.is_image(path) else _listed(path)
        root = _common(paths)
    elif _WILD & set(text):
        paths = _outside(without, _matched(path))
        root = _common(paths)
    else:
        raise ConfigError(
            f"--images={text}: there is no such file or directory; give a directory, an image, a"
            " pattern in quotes, or a text file with a path in each line"
        )
    if not paths:
        raise ConfigError(
            f"--images={text} names no image; the suffixes {', '.join(formats.SUFFIXES)} count"
        )
    return [Source(p, Path(os.path.relpath(p, root)).as_posix()) for p in _each_once(text, paths)]


def predict(
    score: Callable[[Sequence[np.ndarray]], Iterator[Whole]],
    sources: Sequence[Source],
    *,
    batch_size: int,
    min_side: int,
) -> Iterator[Predicted | Unread]:
    """What a model makes of each image, in order.

    Args:
      score: from `models.make_scorer` or `explanations.make_explainer`.
      sources: the images.
      batch_size: at most so many are held, and fewer if they are large.
      min_side: an image with a shorter side cannot be scored.
    """
    read = partial(_read, min_side=min_side)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for some in _batches(sources, batch_size, pool):
            yield from _scored(score, some, list(pool.map(read, some)))


def _scored(
    score: Callable[[Sequence[np.ndarray]], Iterator[Whole]],
    sources: Sequence[Source],
    loaded: Sequence[np.ndarray | str],
) -> Iterator[Predicted | Unread]:
    """What is made of some images; they are let go before others are read."""
    found = score([one for one in loaded if isinstance(one, np.ndarray)])
    for source, one in zip(sources, loaded, strict=True):
        if isinstance(one, np.ndarray):
            yield _predicted(source, one, next(found))
        else:
            yield Unread(source, one)


def _predicted(source: Source, image: np.ndarray, found: Whole) -> Predicted | Unread:
    if not np.isfinite(found.score):
        return Unread(source, f"the score of '{source.path}' is not finite")
    return Predicted(source, image, found.anomaly_map, float(found.score), found)


def _read(source: Source, min_side: int) -> np.ndarray | str:
    example = Example(source.name, source.path, -1, "", None)
    try:
        return images.read_native(example, min_side=min_side).image
    except DatasetError as error:
        return str(error)


def _batches(
    sources: Sequence[Source], batch_size: int, pool: ThreadPoolExecutor
) -> Iterator[list[Source]]:
    """The images in order, so many at a time that they fit in memory."""
    for begin in range(0, len(sources), batch_size):
        some = sources[begin : begin + batch_size]
        held, pixels = [], 0
        for source, size in zip(some, pool.map(_num_pixels, some), strict=True):
            if held and pixels + size > _PIXELS:
                yield held
                held, pixels = [], 0
            held.append(source)
            pixels += size
        yield held


def _num_pixels(source: Source) -> int:
    """As the file's header says; 0 if it cannot be read, which reading will explain."""
    return math.prod(images.header_shape(source.path) or (0,))


def _outside(directories: Sequence[Path], paths: list[Path]) -> list[Path]:
    inside = [os.path.abspath(directory) for directory in directories]
    return [p for p in paths if not any(Path(os.path.abspath(p)).is_relative_to(d) for d in inside)]


def _matched(pattern: Path) -> list[Path]:
    """The images that a pattern matches, sorted."""
    fixed = next(i for i, part in enumerate(pattern.parts) if _WILD & set(part))
    root, rest = Path(*pattern.parts[:fixed]), str(Path(*pattern.parts[fixed:]))
    try:
        return sorted(path for path in root.glob(rest) if listing.is_image(path))
    except ValueError as error:  # such as 'a**'
        raise ConfigError(f"--images={pattern} is not a pattern: {error}") from error


def _listed(path: Path) -> list[Path]:
    """The paths in a text file."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"--images={path} is neither an image nor a text file with a path in each line"
        ) from error
    found = (named(path.parent, line.strip()) for line in lines if line.strip())
    return [Path(os.path.normpath(one)) for one in found]


def _each_once(text: str, paths: list[Path]) -> list[Path]:
    """The paths without those that lead to the same file as one before; says which."""
    first: dict[str, Path] = {}
    again = [path for path in paths if first.setdefault(os.path.realpath(path), path) is not path]
    if again:
        shown = ", ".join(str(path) for path in again[:_SHOWN])
        print(
            f"note: --images={text} names {len(again)} images again, which count once: {shown}"
            + (", ..." if len(again) > _SHOWN else ""),
            file=sys.stderr,
        )
    return list(first.values())


def _common(paths: Sequence[Path]) -> Path:
    return Path(os.path.commonpath([p.absolute().parent for p in paths])) if paths else Path()
