"""What `experiments.predict` writes: scores, maps, overlays and outlines, image by image.

Everything of an image is on disk before the next one is scored, but for the outlines, which are one
file: `finish` writes it, however far the work has come.
"""

import csv
import os
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tifffile
from PIL import Image, PngImagePlugin

from sgfr_jax import thresholds
from sgfr_jax.commands.files import csv_cells, records, written
from sgfr_jax.commands.files.prediction import Predicted, Source, Unread
from sgfr_jax.commands.pages import contours, drawing, figures
from sgfr_jax.datasets import outputs
from sgfr_jax.datasets.geometry import to_size
from sgfr_jax.detector.state import Nulls

MAPS = ("png", "tiff", "none")
COLUMNS = outputs.COLUMNS
ANOMALOUS, NOMINAL = "anomalous", "nominal"
_LEVELS = 65535
# Photographs and maps take no more room than at zlib's default, and a fifth of its time.
_PNG = {"compress_level": 1, "compress_type": zlib.Z_RLE}


class Decisions(NamedTuple):
    """Above what scores are anomalous."""

    image: float
    pixel: float


def drawn(directory: Path) -> list[Path]:
    """Where pictures go in an output directory."""
    return [directory / name for name in outputs.PICTURES]


class Writer:
    """Takes images one by one and writes what was asked for."""

    def __init__(
        self, output: written.Output, nulls: Nulls, decisions: Decisions, *,
        maps: str, overlays: bool, outlines: bool, explained: bool = False,
        output_scale: float | None = None, sources: Sequence[Source] = (),
    ):  # fmt: skip
        """Checks that all can be written; an earlier prediction stays until an image is scored.

        Args:
          output: where to write.
          nulls: of the model.
          decisions: the thresholds.
          maps: one of `MAPS`.
          overlays: whether to draw the map and the outlines on each image.
          outlines: whether to keep the outlines of what is above the pixel threshold.
          explained: whether explanations will be written.
          output_scale: of maps, overlays and the maps that are outlined, as of `drawing.shape_of`.
          sources: the images to come, whose files are checked to have room.

        Raises:
          ConfigError: if something is in the way that no prediction has written.
        """
        self.output, self.nulls, self.decisions = output, nulls, decisions
        self.maps, self.overlays, self.outlines = maps, overlays, outlines
        self.output_scale = output_scale
        self.num_scored = self.num_anomalous = 0
        self.unread: list[Unread] = []
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []
        self.renamed: dict[str, list[str]] = {}
        self.drawn: list[str] = []  # the pictures of the last image
        # As far above the nominal pixels as these reach above their median: the same for all.
        self.low = thresholds.pixel_threshold(nulls.pixels, 0.5)
        self.high = 2 * thresholds.pixel_threshold(nulls.pixels, 0.0) - self.low
        kinds = {"maps": maps != "none", "overlays": overlays, "explanations": explained}
        files = {"contours.json": outlines, "explanations.json": explained}
        output.check((outputs.SCORES, "predictions.json", *(n for n, w in files.items() if w)))
        output.check(
            output.name(kind, source.name, self._suffix(kind))
            for kind, wanted in kinds.items() if wanted for source in sources
        )  # fmt: skip
        self.file = None  # of `scores.csv`
        output.announce()

    @property
    def directory(self) -> Path:
        """Where it writes."""
        return self.output.directory

    @property
    def scale(self) -> figures.Scale:
        """How maps are drawn."""
        return figures.Scale(self.low, self.high, self.decisions.pixel)

    def add(self, found: Predicted | Unread) -> None:
        """Writes what is known of one image."""
        if isinstance(found, Unread):
            self.unread.append(found)
            return
        if self.file is None:
            self._begin()
        self.drawn = []
        p_value = float(thresholds.p_values(self.nulls.images, np.float32(found.score)))
        anomalous = found.score > self.decisions.image
        self._write_pictures(found)
        self.output.seal(*self.drawn)
        # Last: a row stands for an image of which everything is there.
        decision = ANOMALOUS if anomalous else NOMINAL
        name = csv_cells.cell(found.source.name)
        shown = (f"{found.score:.9g}", f"{p_value:.6g}", f"{1 - p_value:.6g}")
        csv.writer(self.file, lineterminator="\n").writerow([name, *shown, decision])
        self.file.flush()
        self.num_scored += 1
        self.num_anomalous += anomalous

    def finish(self, about: dict[str, Any]) -> None:
        """Writes the files that cover all images.

        Where none was scored an earlier prediction stays as it was.

        Args:
          about: what else to say of these predictions.
        """
        if self.file is None:
            if self.output.earlier():
                return
            self._begin()
        self.file.close()
        if self.outlines:
            records.write_json(
                self.output.claim("contours.json"),
                {
                    "images": self.images,
                    "annotations": self.annotations,
                    "categories": [{"id": 1, "name": "defect"}],
                },
            )
        summary = about | {
            "images": self.num_scored,
            "anomalous": self.num_anomalous,
            "skipped": [unread.problem for unread in self.unread],
        }
        if self.renamed:  # names too long, or alike on some file systems
            summary["renamed"] = self.renamed
        records.write_json(self.output.claim("predictions.json"), summary)

    def _begin(self) -> None:
        # What an earlier prediction has written would be taken for part of this one.
        self.output.remove(self.output.earlier())
        self.file = open(self.output.claim(outputs.SCORES), "w", newline="", encoding="utf-8")  # noqa: SIM115
        csv.writer(self.file, lineterminator="\n").writerow(COLUMNS)
        self.file.flush()

    def _write_pictures(self, found: Predicted) -> None:
        if self.maps == "none" and not self.overlays and not self.outlines:
            return
        shape = drawing.shape_of(found.image.shape[:2], self.output_scale)
        drawn = to_size(found.anomaly_map, shape)
        if self.outlines:
            self._keep(found, drawn)
        of_map = None if self.maps == "none" else self._path("maps", found)
        of_overlay = self._path("overlays", found) if self.overlays else None
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            writing = None if of_map is None else pool.submit(_write_map, of_map, drawn)
            if of_overlay is not None:
                drawing.overlay(found.image, drawn, self.scale, pool).save(of_overlay, **_PNG)
            if writing is not None:
                writing.result()

    def _keep(self, found: Predicted, drawn: np.ndarray) -> None:
        number, shape = len(self.images) + 1, found.image.shape[:2]
        regions = [
            contours.enlarged(region, drawn.shape, shape)
            for region in contours.regions(drawn, self.decisions.pixel)
        ]
        self.annotations += contours.annotations(regions, number, len(self.annotations) + 1)
        self.images.append({
            "id": number, "file_name": found.source.name, "width": shape[1], "height": shape[0],
            "score": found.score,
        })  # fmt: skip

    def _path(self, kind: str, found: Predicted) -> Path:
        image, suffix = found.source.name, self._suffix(kind)
        name = self.output.name(kind, image, suffix)
        if name != f"{kind}/{image}{suffix}":
            self.renamed.setdefault(image, []).append(name)
        self.drawn.append(name)
        return self.output.claim(name)

    def _suffix(self, kind: str) -> str:
        return ".tiff" if kind == "maps" and self.maps == "tiff" else ".png"


def _write_map(path: Path, anomaly_map: np.ndarray) -> None:
    if path.suffix == ".tiff":
        tifffile.imwrite(path, anomaly_map, compression="zlib", compressionargs={"level": 1})
    else:
        write_png(path, anomaly_map)


def write_png(path: Path, anomaly_map: np.ndarray) -> None:
    """A map in 16 bits: `offset + scale * value`, which the file's text fields name.

    Offset and scale are the map's own, so that nothing is cut off and nothing tied.
    """
    offset = float(anomaly_map.min())
    scale = (float(anomaly_map.max()) - offset) / _LEVELS or 1.0
    levels = np.empty(anomaly_map.shape, np.uint16)
    for row, values in enumerate(anomaly_map):  # in float64, of a row at a time
        levels[row] = np.round((values.astype(np.float64) - offset) / scale)
    text = PngImagePlugin.PngInfo()
    text.add_text("offset", repr(offset))
    text.add_text("scale", repr(scale))
    Image.fromarray(levels).save(path, pnginfo=text, **_PNG)


def read_png(path: Path) -> np.ndarray:
    """The map that `write_png` wrote, float32, to half a 65535th of its range."""
    with Image.open(path, formats=["PNG"]) as image:
        scale, offset = float(image.text["scale"]), float(image.text["offset"])
        return np.float32(offset + scale * np.asarray(image, np.float64))
