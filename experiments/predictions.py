"""What `experiments.predict` writes: scores, maps, overlays and outlines, image by image.

Everything of an image is on disk before the next one is scored, but for the outlines, which are one
file: `finish` writes it, however far the work has come.
"""

import csv
import os
import shutil
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tifffile
from PIL import Image, PngImagePlugin

from experiments import contours, drawing, figures, records
from experiments.choices import ConfigError
from experiments.nulls import Nulls
from experiments.prediction import Predicted, Unread
from sgfr_jax import thresholds
from sgfr_jax.datasets.geometry import to_size

MAPS = ("png", "tiff", "none")
COLUMNS = ("path", "score", "p_value", "nominal_below", "decision")
ANOMALOUS, NOMINAL = "anomalous", "nominal"
_LEVELS = 65535
# Photographs and maps take no more room than at zlib's default, and a fifth of its time.
_PNG = {"compress_level": 1, "compress_type": zlib.Z_RLE}


class Decisions(NamedTuple):
    """Above what scores are anomalous."""

    image: float
    pixel: float


def drawn(directory: Path) -> list[Path]:
    """The directories of pictures that an earlier call has filled there.

    Its `scores.csv` tells that they are a prediction's; without it there are none.
    """
    try:
        with open(directory / "scores.csv", encoding="utf-8") as file:
            own = next(csv.reader(file), None) == list(COLUMNS)
    except (OSError, UnicodeDecodeError, csv.Error):
        own = False
    return [directory / name for name in ("maps", "overlays", "explanations")] if own else []


def _remove_earlier(directory: Path) -> None:
    """Removes what an earlier call has written there, which would be taken for part of this one."""
    pictures = drawn(directory)
    for path in pictures:
        shutil.rmtree(path, ignore_errors=True)
    if pictures:
        for name in ("contours.json", "predictions.json", "explanations.json"):
            (directory / name).unlink(missing_ok=True)


class Writer:
    """Takes images one by one and writes what was asked for."""

    def __init__(
        self, directory: Path, nulls: Nulls, decisions: Decisions, *, maps: str, overlays: bool,
        outlines: bool, output_scale: float | None = None,
    ):  # fmt: skip
        """Opens `scores.csv`, before any work is done.

        Args:
          directory: made if need be.
          nulls: of the model.
          decisions: the thresholds.
          maps: one of `MAPS`.
          overlays: whether to draw the map and the outlines on each image.
          outlines: whether to keep the outlines of what is above the pixel threshold.
          output_scale: of maps, overlays and the maps that are outlined, as of `drawing.shape_of`.

        Raises:
          ConfigError: if the directory cannot be written.
        """
        self.directory, self.nulls, self.decisions = directory, nulls, decisions
        self.maps, self.overlays, self.outlines = maps, overlays, outlines
        self.output_scale = output_scale
        self.num_scored = self.num_anomalous = 0
        self.unread: list[Unread] = []
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []
        # As far above the nominal pixels as these reach above their median: the same for all.
        self.low = thresholds.pixel_threshold(nulls.pixels, 0.5)
        self.high = 2 * thresholds.pixel_threshold(nulls.pixels, 0.0) - self.low
        try:
            directory.mkdir(parents=True, exist_ok=True)
            _remove_earlier(directory)
            self.file = open(directory / "scores.csv", "w", newline="", encoding="utf-8")  # noqa: SIM115
        except OSError as error:
            raise ConfigError(
                f"--output_dir={directory} cannot be written ({error.strerror}): name another"
            ) from error
        self.rows = csv.writer(self.file, lineterminator="\n")
        self.rows.writerow(COLUMNS)

    @property
    def scale(self) -> figures.Scale:
        """How maps are drawn."""
        return figures.Scale(self.low, self.high, self.decisions.pixel)

    def add(self, found: Predicted | Unread) -> None:
        """Writes what is known of one image."""
        if isinstance(found, Unread):
            self.unread.append(found)
            return
        p_value = float(thresholds.p_values(self.nulls.images, np.float32(found.score)))
        anomalous = found.score > self.decisions.image
        self._write_pictures(found)
        # Last: a row stands for an image of which everything is there.
        decision = ANOMALOUS if anomalous else NOMINAL
        name = found.source.name
        shown = (f"{found.score:.9g}", f"{p_value:.6g}", f"{1 - p_value:.6g}")
        self.rows.writerow([name, *shown, decision])
        self.file.flush()
        self.num_scored += 1
        self.num_anomalous += anomalous

    def finish(self, about: dict[str, Any]) -> None:
        """Writes the files that cover all images.

        Args:
          about: what else to say of these predictions.
        """
        self.file.close()
        if self.outlines:
            records.write_json(
                self.directory / "contours.json",
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
        records.write_json(self.directory / "predictions.json", summary)

    def _write_pictures(self, found: Predicted) -> None:
        if self.maps == "none" and not self.overlays and not self.outlines:
            return
        shape = drawing.shape_of(found.image.shape[:2], self.output_scale)
        drawn = to_size(found.anomaly_map, shape)
        if self.outlines:
            self._keep(found, drawn)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            of_map = pool.submit(self._write_map, found, drawn)
            if self.overlays:
                overlay = drawing.overlay(found.image, drawn, self.scale, pool)
                overlay.save(self._path("overlays", found, ".png"), **_PNG)
            of_map.result()

    def _write_map(self, found: Predicted, drawn: np.ndarray) -> None:
        if self.maps == "tiff":
            path = self._path("maps", found, ".tiff")
            tifffile.imwrite(path, drawn, compression="zlib", compressionargs={"level": 1})
        elif self.maps == "png":
            write_png(self._path("maps", found, ".png"), drawn)

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

    def _path(self, kind: str, found: Predicted, suffix: str) -> Path:
        # Appended, as `a.png` and `a.jpg` are two images.
        path = self.directory / kind / f"{found.source.name}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


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
