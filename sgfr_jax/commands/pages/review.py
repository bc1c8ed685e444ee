"""What a run keeps for the page of `experiments.report --html`: a few pictures, and curves.

One file for each category, `review/CATEGORY.json`. It carries the results that it belongs to, so
that the pictures of one run are never shown beside the numbers of another.
"""

import base64
import bisect
import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from sgfr_jax.commands.files import filenames, records
from sgfr_jax.commands.pages import contours
from sgfr_jax.curves import Points
from sgfr_jax.datasets import Example, images

# Pictures have no more pixels than this on their longer side.
SIDE = 320
# Defective images with the lowest scores, nominal ones with the highest, and some of each kind.
GROUPS = MISSES, ALARMS, DRAWN = ("misses", "alarms", "drawn")
_QUALITY = 85


class Review(NamedTuple):
    """What is kept of a category."""

    results: dict[str, Any]  # those of the category's record
    curves: dict[str, dict[str, Any] | None]  # of pixels, by solver
    pictures: list[dict[str, Any]]  # `Selection.chosen`


class Selection:
    """The pictures worth showing, in bounded memory, while all images go by.

    They are the `num` defective images with the lowest scores and the `num` nominal ones with the
    highest; and a quarter as many of each kind, drawn by a hash of their names.
    """

    def __init__(self, num: int):
        """Selects `num` of the worst; 0 selects nothing."""
        self.num = num
        self._count = 0
        self._kept: dict[tuple[str, str], list[tuple[Any, int, dict[str, Any]]]] = {}

    def add(
        self, example: Example, pixels: images.Loaded, anomaly_map: np.ndarray, score: float
    ) -> None:
        """Shows it one image `[H, W, 3]` with its mask and map `[H, W]`."""
        if not self.num:
            return
        self._count += 1
        worst = (MISSES, score) if example.label else (ALARMS, -score)
        drawn = hashlib.sha256(example.name.encode(errors="surrogateescape")).hexdigest()
        picture = None
        for group, kind, rank, limit in (
            (worst[0], "", worst[1], self.num),
            (DRAWN, example.kind, drawn, max(1, self.num // 4)),
        ):
            entries = self._kept.setdefault((group, kind), [])
            # The count settles ties by order of appearance.
            place = bisect.bisect(entries, (rank, self._count), key=lambda entry: entry[:2])
            if place < limit:
                picture = picture or _picture(example, pixels, anomaly_map, score)
                entries.insert(place, (rank, self._count, picture))
                del entries[limit:]

    def chosen(self) -> list[dict[str, Any]]:
        """The pictures by group, none twice: the worst misses, the worst alarms, others."""
        found: dict[int, dict[str, Any]] = {}
        for group, kind in sorted(self._kept, key=lambda key: (GROUPS.index(key[0]), key[1])):
            for _, count, picture in self._kept[group, kind]:
                found.setdefault(count, {"group": group} | picture)
        return list(found.values())


def save(
    workdir: Path,
    category: str,
    results: Mapping[str, Any],
    selection: Selection,
    points: Mapping[str, Points | None],
) -> None:
    """Writes the review of a category, whole or not at all.

    Args:
      workdir: of the run.
      category: its name.
      results: those of the category's record.
      selection: has seen all images.
      points: of pixels, by solver, the run's own under its name; None where they are undefined.
    """
    curves = {name: None if p is None else listed(p) for name, p in points.items()}
    found = Review(dict(results), curves, selection.chosen())
    records.write(path(workdir, category), found._asdict())


def load(workdir: Path, category: str, results: Mapping[str, Any]) -> Review | None:
    """The review of a category that belongs to these results, or None."""
    found = records.read_whole(path(workdir, category), Review)
    return found if found is not None and found.results == results else None


def path(workdir: Path, category: str) -> Path:
    """Where the review of a category lies."""
    return workdir / "review" / filenames.shortened(category, ".json")


def listed(points: Points) -> dict[str, Any]:
    """The points as lists, for JSON."""
    return {
        name: value.tolist() if isinstance(value, np.ndarray) else value
        for name, value in points._asdict().items()
    }


def _picture(
    example: Example, pixels: images.Loaded, anomaly_map: np.ndarray, score: float
) -> dict[str, Any]:
    """An image, its mask's outlines and its map in 8 bits: `low + (high - low) level / 255`."""
    height, width = anomaly_map.shape
    scale = min(1.0, SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    found = np.asarray(Image.fromarray(anomaly_map).resize(size, Image.Resampling.BILINEAR))
    low, high = float(found.min()), float(found.max())
    levels = np.round(255 * (found - low) / max(high - low, 1e-12)).astype(np.uint8)
    return {
        "file": example.name,
        "kind": example.kind,
        "label": example.label,
        "score": float(score),
        "size": size,
        "image": _encoded(_photograph(pixels.image, size), "JPEG", quality=_QUALITY),
        "map": _encoded(Image.fromarray(levels), "PNG", compress_level=4),
        "low": low,
        "high": high,
        "outline": None if pixels.mask is None else _outline(pixels.mask, size),
    }


def _photograph(image: np.ndarray, size: tuple[int, int]) -> Image.Image:
    drawn = Image.fromarray(image).resize(size, Image.Resampling.BILINEAR)
    grey = (image == image[..., :1]).all()
    return drawn.convert("L") if grey else drawn


def _outline(mask: np.ndarray, size: tuple[int, int]) -> list[list[float]]:
    """Each ring as `x, y, x, y, ...`, in pixels of the picture."""
    drawn = Image.fromarray(mask).resize(size, Image.Resampling.NEAREST)
    return [np.round(ring, 1).ravel().tolist() for ring in contours.rings(np.asarray(drawn))]


def _encoded(image: Image.Image, form: str, **options: Any) -> str:
    written = io.BytesIO()
    image.save(written, form, **options)
    return base64.b64encode(written.getvalue()).decode()
