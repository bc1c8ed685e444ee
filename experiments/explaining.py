"""What `experiments.predict --explain` writes: a page for each explained image, and all as JSON."""

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from experiments import (
    detectors,
    explanation_pages,
    explanations,
    figures,
    models,
    prediction,
    progress,
    records,
    training_images,
)
from experiments.prediction import Predicted, Source


def write(
    directory: Path,
    model: models.Model,
    detector: detectors.Detector,
    sources: Sequence[Source],
    scale: figures.Scale,
    *,
    min_side: int,
) -> None:
    """Writes `explanations.json`, and a page below `explanations/` for every image.

    Args:
      directory: of the predictions.
      model: that scored the images.
      detector: of the model.
      sources: the images, in the order in which they are told of.
      scale: of the pages' maps; its threshold also says which places beside the highest count.
      min_side: as of `prediction.predict`.
    """
    explain = explanations.make_explainer(model, detector, least=scale.threshold)
    score = models.make_scorer(model, detector=detector)
    read, train = training_images.make_reader(model), model.about.train
    told, named, at_once = [], set(), detector.batch_size
    with progress.bar("explaining", len(sources), "images") as report:
        for begin in range(0, len(sources), at_once):
            some = sources[begin : begin + at_once]
            found = prediction.predict(score, some, batch_size=at_once, min_side=min_side)
            found = [one for one in found if isinstance(one, Predicted)]
            for one, places in zip(found, explain([one.image for one in found]), strict=True):
                path = directory / "explanations" / f"{one.source.name}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                title = f"{one.source.name}   score {one.score:.4g}"
                page = explanation_pages.Page(title, one.image, one.anomaly_map, places)
                explanation_pages.draw(page, scale, train, read).save(path)
                named |= {a.image for p in places for view in p.views for a in view.atoms}
                told.append({
                    "path": one.source.name,
                    "score": one.score,
                    "page": path.relative_to(directory).as_posix(),
                    "places": [explanations.describe(p, one.image.shape, train) for p in places],
                })  # fmt: skip
                report(1)
    notes = list(_notes(model, named, read))
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    records.write_json(directory / "explanations.json", {"images": told, "notes": notes})


def _notes(model: models.Model, named: set[int], read: Callable) -> Iterator[str]:
    """Why some atoms are not shown, of the training images that are named; -1 is none."""
    if -1 in named:
        yield "the atoms are learned: they are no patches of an image, and none can be shown"
    shown = [read(image) is not None for image in sorted(named - {-1})]
    if shown and not model.about.hashes:
        yield (
            "the model was saved before models kept where their training images lie: these are"
            " named but not shown; fit it again to see them"
        )
    elif not all(shown):
        yield (
            f"{shown.count(False)} of {len(shown)} training images are gone or have changed since"
            " the model was fitted: they are named but not shown"
        )
