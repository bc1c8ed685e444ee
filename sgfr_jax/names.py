"""The answer to a name that is not known: the nearest known one, then all of them."""

import difflib
from collections.abc import Iterable


def unknown_name(what: str, name: str, known: Iterable[str]) -> str:
    """Returns the message for an unknown name; case does not count in finding the nearest.

    Args:
      what: the kind of thing that is named.
      name: what was asked for.
      known: what could have been, in the order to list them in.
    """
    known = list(known)
    folded = {other.casefold(): other for other in known}
    near = difflib.get_close_matches(str(name).casefold(), folded, n=1, cutoff=0.5)
    hint = f" Did you mean '{folded[near[0]]}'?" if near else ""
    return f"unknown {what} '{name}'.{hint} Known: {', '.join(known)}."
