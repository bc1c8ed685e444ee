"""Keeps the images that a reader should see while all of them go by."""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from sgfr_jax.commands.pages import figures
from sgfr_jax.commands.pages.figures import Panel


class Gallery:
    """The most and the least certain images of each kind, in bounded memory.

    A defective image is the more certain the higher its score, a nominal one the lower.
    """

    def __init__(self, num: int):
        """Keeps `num` images of either end, for each kind."""
        self.num = num
        self.kept: dict[str, list[tuple[float, int, Panel]]] = {}
        self.lows: list[float] = []
        self.highs: list[float] = []

    def add(self, kind: str, label: int, score: float, panel: Panel) -> None:
        """Shows it one image."""
        # A sixteenth of the pixels tells the range of a smooth map.
        self.lows.append(float(np.quantile(panel.anomaly_map[::4, ::4], 0.02)))
        self.highs.append(float(panel.anomaly_map.max()))
        if not self.num:
            return
        entries = self.kept.setdefault(kind, [])
        # The count settles ties by order of appearance.
        entries.append((score if label else -score, -len(self.lows), panel))
        entries.sort(key=lambda entry: entry[:2])
        if len(entries) > 2 * self.num:
            del entries[self.num]

    def chosen(self) -> dict[str, Panel]:
        """The panels by name, such as `crack_least_1`, no image twice."""
        named = {}
        for kind, entries in sorted(self.kept.items()):
            panels = [panel for _, _, panel in entries]
            most = panels[::-1][: self.num]
            least = panels[: len(panels) - len(most)]
            named |= {f"{kind}_most_{i}": panel for i, panel in enumerate(most, 1)}
            named |= {f"{kind}_least_{i}": panel for i, panel in enumerate(least, 1)}
        return named

    def scale(self) -> tuple[float, float]:
        """The values that all figures draw darkest and brightest."""
        if not self.lows:
            return 0.0, 1.0
        return float(np.median(self.lows)), float(np.quantile(self.highs, 0.98))

    def save(self, place: Callable[[str], Path]) -> None:
        """Draws the chosen images into PNG files, each where `place` says for its name."""
        low, high = self.scale()
        for name, panel in self.chosen().items():
            figures.save(place(name), panel, low, high)


def names(kinds: Iterable[str], num: int) -> list[str]:
    """All names that `Gallery.chosen` may give to images of these kinds."""
    return [
        f"{kind}_{which}_{i}"
        for kind in sorted(set(kinds))
        for which in ("most", "least")
        for i in range(1, num + 1)
    ]
