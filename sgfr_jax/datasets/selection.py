"""Choosing categories by name."""

from collections.abc import Iterable, Sequence

from sgfr_jax import names
from sgfr_jax.datasets.types import DatasetError


def select_categories(
    known: Iterable[str], wanted: Sequence[str] | None, *, dataset: str
) -> tuple[str, ...]:
    """Returns the wanted names in sorted order, each once; `None` wants all of them."""
    known = set(known)
    if wanted is None:
        return tuple(sorted(known))
    if isinstance(wanted, str):
        raise DatasetError(f"categories must be a sequence of names; pass ['{wanted}'].")
    if not wanted:
        raise DatasetError("categories is empty; name at least one, or pass None for all.")
    for name in wanted:
        if name not in known:
            raise DatasetError(
                names.unknown_name(f"category of data set '{dataset}'", name, sorted(known))
            )
    return tuple(sorted(set(wanted)))
