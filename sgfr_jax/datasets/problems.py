"""Everything that is wrong, in one message."""

from collections.abc import Sequence

from sgfr_jax.datasets.types import DatasetError

MAX_NAMED = 20


def refuse(problems: Sequence[str], *, remedy: str = "") -> None:
    """Raises one `DatasetError` that lists `problems`, if there are any.

    Args:
      problems: a sentence for each; those beyond the first `MAX_NAMED` are only counted.
      remedy: what would be right, said once below them.
    """
    if not problems:
        return
    message = problems[0]
    if len(problems) > 1:
        named = [f"  - {problem}" for problem in problems[:MAX_NAMED]]
        if len(problems) > MAX_NAMED:
            named.append(f"  - and {len(problems) - MAX_NAMED} more.")
        message = "\n".join([f"there are {len(problems)} problems:", *named])
    raise DatasetError(f"{message}\n{remedy}" if remedy else message)
