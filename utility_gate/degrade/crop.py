"""Cropping to a random window."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from utility_gate.degrade import checks
from utility_gate.degrade.base import PixelDegradation, View
from utility_gate.images import Pixels


@dataclass(frozen=True, slots=True)
class Crop(PixelDegradation):
    """Keeps a window with `keep` (0 excluded, to 1) of each side, anywhere in the image.

    The window is on whole pixels and holds at least one. The copy is a PNG.
    """

    name: ClassVar[str] = "crop"
    severities: ClassVar = tuple({"keep": keep} for keep in (0.9, 0.75, 0.6, 0.45, 0.3))

    keep: float
    seed: int = 0

    def __post_init__(self) -> None:
        keep = checks.number(self.keep, "a kept share", 0, 1, excluded=0)
        object.__setattr__(self, "keep", keep)
        checks.seed(self.seed)

    def alter(self, pixels: Pixels, key: str = "") -> Pixels:
        """The window."""
        height, width = checks.rgb(pixels).shape[:2]
        x0, y0, x1, y1 = (int(edge) for edge in self.view(width, height, key))
        return pixels[y0:y1, x0:x1].copy()

    def view(self, width: int, height: int, key: str = "") -> View:
        """The window, on whole pixels."""
        at_x, at_y = self.generator(key).random(2).tolist()
        x0, x1 = self._span(width, at_x)
        y0, y1 = self._span(height, at_y)
        return (x0, y0, x1, y1)

    def _span(self, side: int, at: float) -> tuple[float, float]:
        kept = max(1, math.floor(side * self.keep + 0.5))
        start = min(side - kept, math.floor(at * (side - kept + 1)))
        return (float(start), float(start + kept))

    @property
    def label(self) -> str:
        """The share of each side that is kept."""
        return f"crop {self.keep:g}"
