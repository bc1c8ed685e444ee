"""Outlines of defects as polygons, in COCO's format."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage, spatial
from skimage import measure

# Corners nearer than this to the outline, in pixels, are left out of it.
TOLERANCE = 0.7


class Region(NamedTuple):
    """Pixels above the threshold that touch at their edges."""

    polygon: np.ndarray  # [V, 2] float64: x and y; a pixel is the unit square beside its index
    box: tuple[int, int, int, int]  # left, top, width, height
    area: int  # pixels
    score: float  # the largest


def regions(
    anomaly_map: np.ndarray, threshold: float, *, tolerance: float = TOLERANCE
) -> list[Region]:
    """The regions of a map above a threshold, the largest score first.

    A polygon is closed without naming its first corner twice. One with holes runs along the
    outline, over a bridge of no width to each hole, around it and back, since COCO's polygons know
    no holes; counting crossings (even-odd), as everyone's rasteriser does, leaves them open.

    Args:
      anomaly_map: `[H, W]`.
      threshold: pixels above it belong to a region.
      tolerance: how far, in pixels, a polygon may lie from the outline; with 0 the pixels whose
        centres lie inside are exactly the region's.
    """
    labels, _ = ndimage.label(anomaly_map > threshold)
    found = []
    for number, window in enumerate(ndimage.find_objects(labels), 1):
        inside = labels[window] == number
        rows, columns = window
        polygon = _polygon(inside, tolerance) + np.array([columns.start, rows.start])
        box = (columns.start, rows.start, inside.shape[1], inside.shape[0])
        score = float(anomaly_map[window][inside].max())
        found.append(Region(polygon, box, int(inside.sum()), score))
    return sorted(found, key=lambda region: -region.score)


def rings(mask: np.ndarray, *, tolerance: float = TOLERANCE) -> list[np.ndarray]:
    """The outlines of a mask's regions and of their holes, those of large boxes first.

    Args:
      mask: `[H, W]` bool.
      tolerance: as of `regions`.

    Returns:
      Each `[V, 2]`, x and y, closed without naming its first corner twice.
    """
    # Half-way between a pixel within and one without, so that the former's centre is inside.
    found = measure.find_contours(np.pad(mask, 1), 0.5)
    # Of the padded rows and columns, and centres are half a pixel from their index.
    found = [_simpler(ring[:-1], tolerance)[:, ::-1] - 0.5 for ring in found]
    return sorted(found, key=_extent, reverse=True)


def enlarged(region: Region, shape: tuple[int, int], image: tuple[int, int]) -> Region:
    """A region of a map `[h, w]` in the pixels of the image `[H, W]` that the map shows."""
    if shape == image:
        return region
    down, across = (new / old for new, old in zip(image, shape, strict=True))
    left, top, width, height = region.box
    left, right = math.floor(left * across), math.ceil((left + width) * across)
    top, bottom = math.floor(top * down), math.ceil((top + height) * down)
    return region._replace(
        polygon=region.polygon * np.array([across, down]),
        box=(left, top, min(right, image[1]) - left, min(bottom, image[0]) - top),
        area=round(region.area * down * across),
    )


def annotations(found: Sequence[Region], image_id: int, first_id: int) -> Iterator[dict[str, Any]]:
    """COCO's annotations of the regions of one image, numbered from `first_id`."""
    for number, region in enumerate(found, first_id):
        yield {
            "id": number,
            "image_id": image_id,
            "category_id": 1,
            "segmentation": [[round(float(value), 2) for value in region.polygon.ravel()]],
            "bbox": [int(value) for value in region.box],
            "area": region.area,
            "iscrowd": 0,
            "score": region.score,
        }


def _polygon(inside: np.ndarray, tolerance: float) -> np.ndarray:
    """The outline of one region, `[V, 2]`, x and y."""
    outline, *holes = rings(inside, tolerance=tolerance)
    for hole in holes:
        outline = _bridged(outline, hole)
    return outline


def _simpler(ring: np.ndarray, tolerance: float) -> np.ndarray:
    if not tolerance:
        return ring
    closed = measure.approximate_polygon(np.concatenate([ring, ring[:1]]), tolerance)
    return closed[:-1] if len(closed) > 3 else ring


def _extent(ring: np.ndarray) -> float:
    """The area of the box around a ring: of the outer one the largest."""
    return float(np.prod(np.ptp(ring, axis=0)))


def _bridged(outline: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """One ring of two, along the shortest way between their corners."""
    gaps, nearest = spatial.KDTree(outline).query(hole)
    j = int(np.argmin(gaps))
    i = int(nearest[j])
    around = np.concatenate([hole[j:], hole[: j + 1]])
    return np.concatenate([outline[: i + 1], around, outline[i:]])
