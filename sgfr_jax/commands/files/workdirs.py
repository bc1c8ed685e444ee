"""What a run writes into its work directory, known before any work is done."""

import itertools
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from sgfr_jax.commands.files import filenames, records, written
from sgfr_jax.commands.pages import category as one_category
from sgfr_jax.commands.pages import gallery, review
from sgfr_jax.datasets import Category

# Directories that are a run's own.
PLACES = ("figures", "maps", "models", "review", "unfinished")


def check(
    found: Sequence[Category],
    output: written.Output,
    *,
    num_figures: int,
    save_maps: bool,
    save_model: bool,
    reviewed: bool,
) -> None:
    """Checks that a run can write all of its files, and says which results it replaces.

    Args:
      found: the categories, listed.
      output: the work directory.
      num_figures: of the most and of the least certain images, per kind.
      save_maps: whether anomaly maps are written.
      save_model: whether models are.
      reviewed: whether pictures for a report's page are.

    Raises:
      ConfigError: if an image lies where results go, or something is in the way of a file.
    """
    check_inputs(found, output.directory, PLACES)
    output.check(records.FILES)
    replaced = list(records.FILES)
    for c in found:
        of_category = filenames.shortened(c.name)
        replaced += [f"maps/{of_category}", f"figures/{of_category}", review_name(c.name)]
        names = gallery.names((example.kind for example in c.test), num_figures)
        output.check(one_category.figure_name(output, c.name, name) for name in names)
        if reviewed:
            output.check([review_name(c.name)])
        if save_maps:
            output.check(one_category.map_name(output, c.name, example) for example in c.test)
    output.announce(*replaced)
    kept = ["report/report.html"]
    if not save_model:
        kept += [f"models/{filenames.shortened(c.name)}/model.json" for c in found]
    for path in map(output.directory.joinpath, kept):
        if path.is_file():
            print(f"note: {path.parent} is of an earlier call, and stays as it is", file=sys.stderr)


def check_inputs(found: Sequence[Category], workdir: Path, places: Iterable[str]) -> None:
    """Checks that no image or mask lies in these directories of a work directory.

    Raises:
      ConfigError: names the first that does.
    """
    files = (
        file
        for c in found
        for example in itertools.chain(c.train, c.validation, c.test, c.private)
        for file in (example.image, example.mask)
        if isinstance(file, Path)
    )
    directories = [workdir / place for place in places]
    written.refuse_inside(directories, files, f"--workdir={workdir}", "--workdir")


def review_name(category: str) -> str:
    """Where the review of a category goes, below the work directory."""
    return review.path(Path(), category).as_posix()
