"""Blur by motion and by focus, in linear light; beyond its edges an image goes on as there."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from utility_gate.degrade import checks
from utility_gate.degrade.base import PixelDegradation
from utility_gate.degrade.linear import LEVELS, PIXEL_VALUES
from utility_gate.images import Pixels

_Sums = npt.NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class MotionBlur(PixelDegradation):
    """The camera moved `length` (1-500) pixels in a straight line while the shutter was open.

    `angle` is in degrees, [0, 180), anticlockwise from the horizontal; None draws one for each
    image, and only then does `seed` count. Length 1 changes nothing. The copy is a PNG.
    """

    name: ClassVar[str] = "motion_blur"
    severities: ClassVar = tuple({"length": length} for length in (3, 7, 13, 21, 33))

    length: int
    angle: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        checks.whole(self.length, "a length in pixels", 1, 500)
        if self.angle is not None:
            angle = checks.number(self.angle, "an angle in degrees", 0, 180, excluded=180)
            object.__setattr__(self, "angle", angle)
        checks.seed(self.seed)

    def alter(self, pixels: Pixels, key: str = "") -> Pixels:
        """The mean of the image along the line, at every pixel."""
        angle = self.angle
        if angle is None:
            angle = self.generator(key).random() * 180
        line = list(_line(self.length, angle))
        reach_x, reach_y = (max(abs(step[axis]) for step in line) for axis in (0, 1))
        light = _padded_light(pixels, reach_x, reach_y)
        height, width = pixels.shape[:2]
        sums = np.zeros(pixels.shape, np.uint32)
        for x, y in line:
            left, top = reach_x + x, reach_y + y
            sums += light[top : top + height, left : left + width]
        return _mean_to_pixels(sums, len(line))

    @property
    def label(self) -> str:
        """Length, and the angle where it is given."""
        turned = "" if self.angle is None else f" {self.angle:g}deg"
        return f"motion_blur {self.length}px{turned}"


@dataclass(frozen=True, slots=True)
class DefocusBlur(PixelDegradation):
    """The lens was out of focus: each point became a disc of `radius` (1-100) pixels.

    The disc holds the pixels whose centres are at most `radius` away. The copy is a PNG.
    """

    name: ClassVar[str] = "defocus_blur"
    severities: ClassVar = tuple({"radius": radius} for radius in (1.0, 2.0, 4.0, 6.5, 10.0))

    radius: float

    def __post_init__(self) -> None:
        radius = checks.number(self.radius, "a radius in pixels", 1, 100)
        object.__setattr__(self, "radius", radius)

    def alter(self, pixels: Pixels, key: str = "") -> Pixels:  # noqa: ARG002
        """The mean of the image over the disc, at every pixel."""
        reach = math.floor(self.radius)
        light = _padded_light(pixels, reach + 1, reach)
        # A run of pixels in a row is a difference of running sums. These may exceed 32 bits and
        # wrap round; the difference is exact all the same.
        running: _Sums = np.cumsum(light, axis=1, dtype=np.uint32)
        height, width = pixels.shape[:2]
        sums = np.zeros(pixels.shape, np.uint32)
        count = 0
        for y in range(-reach, reach + 1):
            half = math.floor(math.sqrt(self.radius**2 - y**2))
            rows = running[reach + y : reach + y + height]
            left, right = reach - half, reach + half + 1
            sums += rows[:, right : right + width]
            sums -= rows[:, left : left + width]
            count += 2 * half + 1
        return _mean_to_pixels(sums, count)

    @property
    def label(self) -> str:
        """The radius."""
        return f"defocus_blur {self.radius:g}px"


def _line(length: int, angle: float) -> Iterator[tuple[int, int]]:
    """Offsets (x to the right, y down) of a line of pixels, one for each step of its longer
    side, about the middle.
    """
    x, y = math.cos(math.radians(angle)), -math.sin(math.radians(angle))
    longer = max(abs(x), abs(y))
    steps = max(1, math.floor(length * longer + 0.5))
    for step in range(steps):
        along = (step - steps // 2) / longer
        yield math.floor(along * x + 0.5), math.floor(along * y + 0.5)


def _padded_light(pixels: Pixels, x: int, y: int) -> _Sums:
    padded = np.pad(checks.rgb(pixels), ((y, y), (x, x), (0, 0)), mode="edge")
    return LEVELS.astype(np.uint32).take(padded)


def _mean_to_pixels(sums: _Sums, count: int) -> Pixels:
    sums += np.uint32(count // 2)
    sums //= np.uint32(count)
    return PIXEL_VALUES.take(sums)
