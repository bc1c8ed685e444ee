"""How many images the published data sets have, and what differs in a copy."""

from collections.abc import Sequence
from typing import NamedTuple

from sgfr_jax.datasets.types import Category


class Counts(NamedTuple):
    """Numbers of images of a category."""

    train: int
    good: int  # nominal, in the test
    defective: int
    validation: int = 0


# Bergmann et al., IJCV 129 (2021), Table 1: 3,629 / 467 / 1,258 images.
_MVTEC = {
    "bottle": Counts(209, 20, 63),
    "cable": Counts(224, 58, 92),
    "capsule": Counts(219, 23, 109),
    "carpet": Counts(280, 28, 89),
    "grid": Counts(264, 21, 57),
    "hazelnut": Counts(391, 40, 70),
    "leather": Counts(245, 32, 92),
    "metal_nut": Counts(220, 22, 93),
    "pill": Counts(267, 26, 141),
    "screw": Counts(320, 41, 119),
    "tile": Counts(230, 33, 84),
    "toothbrush": Counts(60, 12, 30),
    "transistor": Counts(213, 60, 40),
    "wood": Counts(247, 19, 60),
    "zipper": Counts(240, 32, 119),
}
# Heckler-Kram et al., arXiv:2503.21622; counted in the archive of the checksum in `archives`:
# 2,528 train, 302 validation, 379 and 705 public test images.
_MVTEC2 = {
    "can": Counts(412, 72, 90, 46),
    "fabric": Counts(387, 66, 90, 43),
    "fruit_jelly": Counts(263, 20, 60, 37),
    "rice": Counts(313, 42, 90, 35),
    "sheet_metal": Counts(137, 24, 90, 19),
    "vial": Counts(291, 35, 105, 41),
    "wallplugs": Counts(293, 60, 90, 33),
    "walnuts": Counts(432, 60, 90, 48),
}
# Mishra et al., arXiv:2104.10036: 2,540 images, 1,799 of which train and 290 show a defect.
_BTAD = {
    "01": Counts(400, 21, 49),
    "02": Counts(399, 30, 200),
    "03": Counts(1000, 400, 41),
}
# The nominal and anomalous images per object of https://github.com/amazon-science/spot-diff
# (README), and 8,659 / 962 / 1,200 rows in its `split_csv/1cls.csv`.
_VISA = {
    "candle": Counts(900, 100, 100),
    "capsules": Counts(542, 60, 100),
    "cashew": Counts(450, 50, 100),
    "chewinggum": Counts(453, 50, 100),
    "fryum": Counts(450, 50, 100),
    "macaroni1": Counts(900, 100, 100),
    "macaroni2": Counts(900, 100, 100),
    "pcb1": Counts(904, 100, 100),
    "pcb2": Counts(901, 100, 100),
    "pcb3": Counts(905, 101, 100),
    "pcb4": Counts(904, 101, 100),
    "pipe_fryum": Counts(450, 50, 100),
}
# Counted in the public copy. There is no official split, so the nominal images are one number.
_MTD_NOMINAL, _MTD_DEFECTIVE, _MTD_PAPERS = 952, 392, 925

PUBLISHED: dict[str, dict[str, Counts]] = {
    "btad": _BTAD,
    "mvtec": _MVTEC,
    "mvtec2": _MVTEC2,
    "visa": _VISA,
}


def count(category: Category) -> Counts:
    """Returns the numbers of images of `category`."""
    defective = sum(example.label == 1 for example in category.test)
    good = len(category.test) - defective
    return Counts(len(category.train), good, defective, len(category.validation))


def differences(dataset: str, categories: Sequence[Category]) -> tuple[str, ...]:
    """Returns a sentence for each category whose numbers are not the published ones.

    Args:
      dataset: its name; one whose numbers are not published has no differences.
      categories: what was found.
    """
    if dataset == "mtd":
        return tuple(_mtd_difference(category) for category in categories)
    published = PUBLISHED.get(dataset, {})
    found = []
    for category in categories:
        expected = published.get(category.name)
        if expected is None:
            continue
        parts = [
            f"{have} {what} images instead of {want}"
            for what, have, want in zip(_NAMES, count(category), expected, strict=True)
            if have != want
        ]
        if parts:
            found.append(f"{category.name} has {', '.join(parts)}.")
    return tuple(found)


def shortfalls(dataset: str, categories: Sequence[Category]) -> tuple[str, ...]:
    """Returns those `differences` in which a number is below the published one.

    Such a copy is incomplete, as after an extraction that was interrupted.
    """
    return tuple(
        sentence
        for category in categories
        if _is_short(dataset, category)
        for sentence in differences(dataset, [category])
    )


_NAMES = ("training", "nominal test", "defective test", "validation")


def _is_short(dataset: str, category: Category) -> bool:
    counts = count(category)
    if dataset == "mtd":
        return counts.train + counts.good < _MTD_NOMINAL or counts.defective < _MTD_DEFECTIVE
    expected = PUBLISHED.get(dataset, {}).get(category.name, Counts(0, 0, 0))
    return any(have < want for have, want in zip(counts, expected, strict=True))


def _mtd_difference(category: Category) -> str:
    counts = count(category)
    nominal = counts.train + counts.good
    if (nominal, counts.defective) == (_MTD_NOMINAL, _MTD_DEFECTIVE):
        return (
            f"{category.name} has {nominal} nominal images, as the public copy has; papers report "
            f"{_MTD_PAPERS}."
        )
    return (
        f"{category.name} has {nominal} nominal and {counts.defective} defective images; the "
        f"public copy has {_MTD_NOMINAL} and {_MTD_DEFECTIVE} (papers report {_MTD_PAPERS} "
        "nominal ones)."
    )
