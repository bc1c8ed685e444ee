"""Looking at everything before anything long starts: what would be used, and what is wrong."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from sgfr_jax.datasets import contents, images, masks
from sgfr_jax.datasets.counts import differences
from sgfr_jax.datasets.formats import open_image
from sgfr_jax.datasets.types import Category, DatasetError, Example

Report = Callable[[int, int], None]  # images done, of how many

_MAX_LISTED = 5  # sizes and modes; images of a user's own may all differ


class CategorySurvey(NamedTuple):
    """What one category holds."""

    name: str
    train: int
    validation: int
    good: int  # nominal test images
    kinds: dict[str, int]  # defective test images by kind
    private: int  # images without labels
    masks: int  # defective test images with a mask
    sizes: dict[tuple[int, int], int]  # (width, height) to the number of images, upright
    modes: dict[str, int]  # Pillow's mode of the files, such as 'L' or 'RGB'


class Survey(NamedTuple):
    """What a data set holds and everything that is wrong with it."""

    categories: tuple[CategorySurvey, ...]
    problems: tuple[str, ...]  # these images cannot be used
    notes: tuple[str, ...]  # worth knowing; everything works


class _Seen(NamedTuple):
    size: tuple[int, int] | None = None
    mode: str | None = None
    problem: str | None = None
    note: str | None = None
    hash: str = ""


def survey(
    categories: Sequence[Category],
    *,
    dataset: str | None = None,
    min_side: int = 1,
    workers: int = 4,
    report: Report = lambda done, total: None,
) -> Survey:
    """Reads every image and mask as scoring would, and returns what there is.

    Nothing is written. At most `2 * workers` images are held at a time.

    Args:
      categories: what to look at.
      dataset: its name, to compare its counts with the published ones.
      min_side: an image with a shorter side is a problem.
      workers: the number of threads.
      report: called after each image.
    """
    if workers < 1:
        raise ValueError(f"workers must be at least 1, not {workers}.")
    total = sum(len(_all(category)) for category in categories)
    done, found, problems, notes = 0, [], [], []
    with ThreadPoolExecutor(workers) as pool:
        for category in categories:
            sizes, modes, hashes = Counter(), Counter(), []
            examples = iter(_all(category))
            # In batches, so that results do not pile up behind a slow image.
            while batch := tuple(islice(examples, 2 * workers)):
                for seen in pool.map(lambda example: _look(example, min_side), batch):
                    if seen.size is not None:
                        sizes[seen.size] += 1
                        modes[seen.mode] += 1
                    problems += [seen.problem] if seen.problem else []
                    notes += [f"{category.name}: {seen.note}"] if seen.note else []
                    hashes.append(seen.hash)
                    done += 1
                    report(done, total)
            found.append(_summary(category, sizes, modes))
            notes += [f"{category.name}: {note}." for note in category.notes]
            num_train = len(category.train)
            others = (*category.validation, *category.test)
            of_others = hashes[num_train : num_train + len(others)]
            copies = contents.notes_on_copies(hashes[:num_train], others, of_others)
            notes += [f"{category.name}: {note}." for note in copies]
    notes += _notes(categories)
    if dataset is not None:
        notes += differences(dataset, categories)
    return Survey(tuple(found), tuple(problems), tuple(notes))


def describe(result: Survey) -> str:
    """Returns the survey as lines of text: what would be used, the notes, then the problems."""
    return "\n".join(_lines(result))


def _lines(result: Survey) -> Iterator[str]:
    for category in result.categories:
        kinds = ", ".join(f"{kind} {number}" for kind, number in sorted(category.kinds.items()))
        defective = sum(category.kinds.values())
        yield f"{category.name}:"
        yield f"  train       {category.train}"
        if category.validation:
            yield f"  validation  {category.validation}"
        yield f"  test        {category.good} good, {defective} defective" + (
            f" ({kinds}), {category.masks} with a mask" if defective else ""
        )
        if category.private:
            yield f"  private     {category.private} (no labels; for prediction only)"
        sizes = {f"{width} x {height}": n for (width, height), n in category.sizes.items()}
        yield f"  sizes       {_most(sizes)}"
        yield f"  modes       {_most(category.modes)}"
    for note in result.notes:
        yield f"note: {note}"
    for problem in result.problems:
        yield f"problem: {problem}"
    count = len(result.problems)
    yield "no problems" if not count else f"{count} problem{'s' if count > 1 else ''}"


def _most(counts: dict[str, int]) -> str:
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    shown = [f"{what} ({number})" for what, number in ranked[:_MAX_LISTED]]
    if len(ranked) > _MAX_LISTED:
        shown.append(f"and {len(ranked) - _MAX_LISTED} others")
    return ", ".join(shown) or "none"


def _all(category: Category) -> tuple[Example, ...]:
    return category.train + category.validation + category.test + category.private


def _look(example: Example, min_side: int) -> _Seen:
    of_image = contents.content_hash(example.image)
    try:
        loaded = images.read_native(example, min_side=min_side)
    except DatasetError as error:
        return _Seen(problem=str(error), hash=of_image)
    height, width = loaded.image.shape[:2]
    note = None
    if example.mask is not None and loaded.mask.any() != bool(example.label):
        has = "has a mask that marks no pixel" if example.label else "is good, but has a mask"
        note = f"'{example.name}' {has}."
    elif example.label and loaded.mask is not None and masks.looks_inverted(loaded.mask):
        note = (
            f"'{example.name}' has a mask that marks more than half of it or all of its border; is"
            " it inverted?"
        )
    return _Seen((width, height), _mode(example, loaded), note=note, hash=of_image)


def _mode(example: Example, loaded: images.Loaded) -> str:
    if isinstance(example.image, Path):
        try:
            with open_image(example.image) as image:
                return image.mode
        except OSError:
            return "other"  # a TIFF that Pillow does not know, but tifffile does
    return "L" if loaded.image.ndim == 2 else "RGB"


def _summary(category: Category, sizes: Counter, modes: Counter) -> CategorySurvey:
    defective = [example for example in category.test if example.label == 1]
    return CategorySurvey(
        name=category.name,
        train=len(category.train),
        validation=len(category.validation),
        good=len(category.test) - len(defective),
        kinds=dict(Counter(example.kind for example in defective)),
        private=len(category.private),
        masks=sum(example.mask is not None for example in defective),
        sizes=dict(sizes),
        modes=dict(modes),
    )


def _notes(categories: Sequence[Category]) -> Iterator[str]:
    for category in categories:
        labels = {example.label for example in category.test}
        if not category.test:
            yield f"{category.name} has no test images: it can be fitted, but not judged."
        elif labels != {0, 1}:
            only = "defective" if labels == {1} else "good"
            yield f"{category.name} has {only} test images only, so no AUROC can be computed."
