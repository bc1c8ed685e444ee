"""What `experiments.predict --explain` writes: a page for each explained image, and all as JSON."""

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from sgfr_jax.commands.files import (
    prediction,
    records,
    training_images,
    written,
)
from sgfr_jax.commands.files.prediction import Predicted, Source
from sgfr_jax.commands.host import progress
from sgfr_jax.commands.pages import explanation_pages, figures
from sgfr_jax.detector import explaining, places
from sgfr_jax.detector.explaining import Atom, Place, View
from sgfr_jax.detector.model import Detector
from sgfr_jax.detector.stages import Stages

Reader = Callable[[int], np.ndarray | None]  # of `training_images.make_reader`


def write(
    output: written.Output,
    detector: Detector,
    stages: Stages,
    sources: Sequence[Source],
    scale: figures.Scale,
    *,
    min_side: int,
) -> None:
    """Writes `explanations.json`, and a page below `explanations/` for every image.

    Args:
      output: the directory of the predictions.
      detector: that scored the images.
      stages: of it.
      sources: the images, in the order in which they are told of.
      scale: of the pages' maps; its threshold also says which places beside the highest count.
      min_side: as of `prediction.predict`.
    """
    explain = explaining.make_explainer(detector, stages, least=scale.threshold)
    read, train = training_images.make_reader(detector), detector.about.train
    told, named = [], set()
    with progress.bar("explaining", len(sources), "images") as report:
        for one in prediction.predict(
            explain, sources, batch_size=stages.services.batch_size, min_side=min_side,
            white=detector.about.white,
        ):  # fmt: skip
            report(1)
            if not isinstance(one, Predicted):
                continue
            found = one.found.places
            name = output.name("explanations", one.source.name, ".png")
            title = f"{one.source.name}   score {one.score:.4g}"
            page = explanation_pages.Page(title, one.image, one.anomaly_map, found)
            explanation_pages.draw(page, scale, train, read).save(output.claim(name))
            output.seal(name)
            named |= {a.image for place in found for view in place.views for a in view.atoms}
            told.append({
                "path": one.source.name,
                "score": one.score,
                "page": name,
                "places": [describe(place, one.image.shape, train, read) for place in found],
            })  # fmt: skip
    notes = list(_notes(named, read))
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    records.write_json(output.claim("explanations.json"), {"images": told, "notes": notes})


def describe(
    place: Place, shape: tuple[int, ...], train: Sequence[str], read: Reader
) -> dict[str, Any]:
    """A place as JSON takes it, in pixels of the image.

    Args:
      place: of the image.
      shape: the image's, height and width first.
      train: names of the training images.
      read: of those images, what can still be had.
    """
    return {
        "x": round(place.x * shape[1], 1),
        "y": round(place.y * shape[0], 1),
        "value": place.value,
        "streams": [
            {
                "name": view.stream,
                "part": view.part,
                "residual": view.score,
                "levels": view.levels,
                "box": places.cell_box(view.cell, view.grid, shape[:2], view.window),
                "atoms": [_describe_atom(atom, view, train, read) for atom in view.atoms],
            }
            for view in place.views
        ],
    }


def _describe_atom(atom: Atom, view: View, train: Sequence[str], read: Reader) -> dict[str, Any]:
    """Where an atom comes from: its cell, counted from 0, as the training image may be gone.

    Where that is no cell of the whole image, also of which window, and its pixels if these can be
    had.
    """
    named = {"atom": atom.number, "weight": atom.weight}
    if atom.image < 0:
        return named | {"learned": True}
    row, column = divmod(atom.cell, view.grid)
    named |= {"image": train[atom.image], "row": row, "column": column, "grid": view.grid}
    if view.geometry.kind == "square":
        return named
    named["window"] = atom.window
    image = read(atom.image)
    if image is not None:
        shape = image.shape[:2]
        window = explaining.atom_window(view, atom, shape)
        named["box"] = places.cell_box(atom.cell, view.grid, shape, window)
    return named


def _notes(named: set[int], read: Reader) -> Iterator[str]:
    """Why some atoms are not shown, of the training images that are named; -1 is none."""
    if -1 in named:
        yield "the atoms are learned: they are no patches of an image, and none can be shown"
    shown = [read(image) is not None for image in sorted(named - {-1})]
    if not all(shown):
        yield (
            f"{shown.count(False)} of {len(shown)} training images are gone or have changed since"
            " the model was fitted: they are named but not shown"
        )
