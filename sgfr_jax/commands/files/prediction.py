"""Images of any number and size, scored by a model a few at a time."""

import codecs
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sgfr_jax.commands.files import written
from sgfr_jax.commands.flags import checking
from sgfr_jax.commands.flags.checking import ConfigError
from sgfr_jax.datasets import DatasetError, Example, decoding, formats, images, left_out, listing
from sgfr_jax.datasets.outputs import RECORD, photographs
from sgfr_jax.datasets.paths import named
from sgfr_jax.datasets.types import FULL_RANGE
from sgfr_jax.detector.assembly import Whole

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


def find(text: str, outputs: Sequence[Path] = ()) -> list[Source]:
    """The images that `--images` names, sorted; those of a list in its order. Each counts once.

    Every file with an image's suffix is among them; `parted` takes out the files that cannot be
    opened. Files that our commands have written, such as maps and overlays, are passed over with a
    note, unless one of them is the only file named.

    Args:
      text: an image; a directory, of which all images count; a pattern with `*`, `?`, `[]` and
        `**`; or a text file with a path in each line, relative to the file's directory.
      outputs: directories that results will go to, which no image may lie in.

    Raises:
      ConfigError: if there is no image, or one lies where results go.
    """
    path = checking.path("images", text)
    if path.is_file():
        found = [path] if listing.is_called_image(path) else _listed(path)
    elif path.is_dir() or _WILD & set(text):
        found = _below(path, listing.is_called_image)
    else:
        raise ConfigError(
            f"--images={text}: there is no such file or directory; give a directory, an image, a"
            " pattern in quotes, or a text file with a path in each line"
        )
    paths = found if found == [path] else photographs(found)
    passed = len(found) - len(paths)
    if not paths:
        but = f" but {passed} that an earlier call wrote" if passed else ""
        raise ConfigError(
            f"--images={text} names no image{but}; the suffixes {', '.join(formats.SUFFIXES)} count"
            + "".join(f"; {note}" for note in left_out.notes(not_read(text)))
        )
    if passed:
        print(
            f"note: --images={text}: passed over, as an earlier call wrote them: {passed}",
            file=sys.stderr,
        )
    written.refuse_inside(outputs, paths, f"--images={text}", "--output_dir")
    paths = _each_once(text, paths)
    plain = [_plain(p) for p in paths]
    root = _plain(path) if path.is_dir() else os.path.commonpath([p.parent for p in plain])
    return [
        Source(p, Path(os.path.relpath(absolute, root)).as_posix())
        for p, absolute in zip(paths, plain, strict=True)
    ]


def not_read(text: str) -> list[Path]:
    """The visible files that a directory or a pattern names and `find` leaves out, sorted.

    Args:
      text: as of `find`; an image, or what is in a list, is never left out.
    """
    path = Path(text).expanduser()
    found = [] if path.is_file() else _below(path, listing.is_other)
    return [path for path in photographs(found) if path.name != RECORD]


def parted(sources: Iterable[Source]) -> tuple[list[Source], list[Unread]]:
    """The images without those that cannot be opened, such as links to nothing; and these."""
    sound, faulty = [], []
    for source in sources:
        problem = listing.fault(source.path)
        if problem is None:
            sound.append(source)
        else:
            faulty.append(Unread(source, problem))
    return sound, faulty


def unread(paths: Sequence[Path]) -> list[Unread]:
    """Those of `not_read` that are images of a kind that is not read: nobody has looked at them."""
    return [
        Unread(
            Source(path, str(path)),
            listing.fault(path) or f"'{path}' may be an image, but its suffix is not read",
        )
        for path in paths
        if left_out.is_image_like(path)
    ]


def predict(
    score: Callable[[Sequence[np.ndarray]], Iterator[Whole]],
    sources: Sequence[Source],
    *,
    batch_size: int,
    min_side: int,
    white: int = FULL_RANGE,
) -> Iterator[Predicted | Unread]:
    """What a model makes of each image, in order.

    Args:
      score: from `predicting.make_scorer` or `explaining.make_explainer`.
      sources: the images.
      batch_size: the most images that are held; fewer if they are large.
      min_side: an image with a shorter side cannot be scored.
      white: of the model: the value of 16-bit images that is white.
    """
    read = partial(_read, min_side=min_side, white=white)
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


def _read(source: Source, min_side: int, white: int) -> np.ndarray | str:
    example = Example(source.name, source.path, -1, "", None, white=white)
    try:
        return images.read_native(example, min_side=min_side).image
    except DatasetError as error:
        return str(error)


def _batches(
    sources: Sequence[Source], batch_size: int, pool: ThreadPoolExecutor
) -> Iterator[list[Source]]:
    """The images in order, in parts that fit in memory."""
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
    return math.prod(decoding.header_shape(source.path) or (0,))


def _plain(path: Path) -> Path:
    """The absolute path without `..`, by which an image is named."""
    plain = Path(os.path.abspath(path))
    if ".." in path.parts and path.exists():
        try:
            same = plain.samefile(path)
        except OSError:
            same = False
        if not same:  # `..` of a link is elsewhere
            return Path(os.path.realpath(path.parent), path.name)
    return plain


def _below(path: Path, wanted: Callable[[Path], bool]) -> list[Path]:
    """What lies in a directory, or a pattern matches, and is wanted; sorted."""
    if path.is_dir():
        return sorted(filter(wanted, listing.files(path)))
    return _matched(path, wanted)


def _matched(pattern: Path, wanted: Callable[[Path], bool]) -> list[Path]:
    fixed = next(i for i, part in enumerate(pattern.parts) if _WILD & set(part))
    *above, name = pattern.parts[fixed:]
    if not _WILD & set(name):  # which `glob` looks up, and passes over links to nothing
        name = f"[{name[0]}]{name[1:]}"
    root, rest = Path(*pattern.parts[:fixed]), str(Path(*above, name))
    try:
        return sorted(filter(wanted, root.glob(rest)))
    except ValueError as error:  # such as 'a**'
        raise ConfigError(f"--images={pattern} is not a pattern: {error}") from error


def _listed(path: Path) -> list[Path]:
    """The paths in a text file."""
    try:
        lines, is_wide = _text(path)
    except (OSError, UnicodeDecodeError) as error:
        raise _no_list(path) from error
    found = [named(path.parent, line.strip()) for line in lines if line.strip()]
    if any("\0" in str(one) for one in found) or (is_wide and not any(o.exists() for o in found)):
        raise _no_list(path)
    return found


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


def _text(path: Path) -> tuple[list[str], bool]:
    """The lines of a text file, and whether it is UTF-16, as any file beginning with two bytes is.

    UTF-8 is read with and without a byte order mark, UTF-16 with one.
    """
    content = path.read_bytes()
    is_wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return content.decode("utf-16" if is_wide else "utf-8-sig").splitlines(), is_wide


def _no_list(path: Path) -> ConfigError:
    return ConfigError(
        f"--images={path} is neither an image nor a text file with a path in each line"
    )
