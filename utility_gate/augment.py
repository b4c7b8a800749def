"""More sources for a class that is rare: flipped, cropped, a little brighter or paler.

Degraded copies are never multiplied. A source is augmented, then degraded and labelled as any
other, so nothing here may look like compression: the crop is on whole pixels, nothing is scaled.
"""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from utility_gate.images import Pixels

ZOOM = (0.75, 1.0)
PLACE = (0.0, 1.0)
TONE = (0.8, 1.2)

MIN_VISIBLE = 0.5
"""A box of which less than this share is still in the image is no longer kept."""

_DECIMALS = 4
_RANGES = {"zoom": ZOOM, "x": PLACE, "y": PLACE, "brightness": TONE, "contrast": TONE}
_NAME = re.compile(
    r"flip=([01])," + ",".join(rf"{field}=(\d\.\d{{{_DECIMALS}}})" for field in _RANGES),
    re.ASCII,
)

Boxes = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Augmentation:
    """One way to make a new source of a source.

    The window keeps `zoom` (0.75-1) of each side; `x` and `y` (0-1) place it between left and
    right, top and bottom. `flip` then exchanges left and right. Pixel values are multiplied by
    `brightness`, then spread about the middle grey by `contrast` (0.8-1.2 both).

    Raises:
        ValueError: if a value is out of range or has more than four decimals, which its name
            could not hold.
    """

    flip: bool
    zoom: float
    x: float
    y: float
    brightness: float
    contrast: float

    def __post_init__(self) -> None:
        if not isinstance(self.flip, bool):
            raise ValueError(f"expected flip to be true or false, got {self.flip!r}")
        for field, (low, high) in _RANGES.items():
            value = getattr(self, field)
            if (
                not isinstance(value, int | float)
                or isinstance(value, bool)
                or not low <= value <= high
                or value != round(value, _DECIMALS)
            ):
                raise ValueError(
                    f"expected {field} in [{low:g}, {high:g}] with at most {_DECIMALS} decimals, "
                    f"got {value!r}"
                )
            object.__setattr__(self, field, float(value) + 0.0)  # -0.0 would have another name

    @property
    def name(self) -> str:
        """Short text that says everything; `parse` reads it."""
        values = [f"{field}={getattr(self, field):.{_DECIMALS}f}" for field in _RANGES]
        return ",".join([f"flip={int(self.flip)}", *values])

    def view(self, width: int, height: int) -> tuple[int, int, int, int]:
        """The window x0, y0, x1, y1 of a `width` x `height` source, on whole pixels."""
        x0, x1 = _span(width, self.zoom, self.x)
        y0, y1 = _span(height, self.zoom, self.y)
        return (x0, y0, x1, y1)

    def apply(self, pixels: Pixels) -> Pixels:
        """HWC uint8 RGB to the same, contiguous, at most as large.

        Raises:
            ValueError: unless `pixels` are HWC uint8 RGB.
        """
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
            raise ValueError(f"expected HWC uint8 RGB, got {pixels.dtype} {pixels.shape}")
        height, width = pixels.shape[:2]
        x0, y0, x1, y1 = self.view(width, height)
        window = pixels[y0:y1, x0:x1]
        if self.flip:
            window = window[:, ::-1]
        augmented: Pixels = self._tones().take(window)  # contiguous, whatever the window is
        return augmented

    def boxes(
        self, boxes_xyxy: npt.ArrayLike, width: int, height: int
    ) -> tuple[Boxes, npt.NDArray[np.bool_]]:
        """Where boxes of the source lie in the augmented image.

        Args:
            boxes_xyxy: (N, 4), x0, y0, x1, y1 in pixels of the source.
            width: of the source, pixels.
            height: of the source, pixels.

        Returns:
            The boxes (N, 4) in pixels of the augmented image, clipped to it, and for each (N,)
            whether at least half of its area can still be seen. Boxes without area are not kept.

        Raises:
            ValueError: unless the boxes are (N, 4), finite, with x0 <= x1 and y0 <= y1.
        """
        source = np.asarray(boxes_xyxy, np.float64)
        if (
            source.ndim != 2
            or source.shape[1] != 4
            or not np.isfinite(source).all()
            or (source[:, 2:] < source[:, :2]).any()
        ):
            raise ValueError(f"expected finite boxes (N, 4) as x0, y0, x1, y1, got {boxes_xyxy!r}")
        left, top, right, bottom = self.view(width, height)
        clipped = source.clip([left, top, left, top], [right, bottom, right, bottom])
        area = _area(source)
        kept = (area > 0) & (_area(clipped) >= MIN_VISIBLE * area)
        clipped -= [left, top, left, top]
        if self.flip:
            clipped[:, [0, 2]] = (right - left) - clipped[:, [2, 0]]
        return clipped, kept

    def _tones(self) -> Pixels:
        """The new value of each of the 256 pixel values."""
        bright = np.arange(256) * self.brightness
        spread = (bright - 127.5) * self.contrast + 127.5
        tones: Pixels = np.floor(spread + 0.5).clip(0, 255).astype(np.uint8)
        return tones


def parse(name: str) -> Augmentation:
    """The augmentation with this name; the inverse of `Augmentation.name`.

    Raises:
        ValueError: if no augmentation has this name.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise ValueError(f"expected an augmentation such as {_EXAMPLE.name!r}, got {name!r}")
    flip, *values = match.groups()
    return Augmentation(flip == "1", *(float(value) for value in values))


def draw(seed: int, source_digest: str, number: int) -> Augmentation:
    """The augmentation `number` (from 0) of a source, given by its SHA-256; ever the same."""
    text = "\x1f".join(("augment", str(seed), source_digest, str(number)))
    digest = hashlib.sha256(text.encode()).digest()
    shares = [int.from_bytes(digest[i : i + 4], "big") / 2**32 for i in range(0, 24, 4)]
    values = [
        round(low + share * (high - low), _DECIMALS)
        for share, (low, high) in zip(shares[1:], _RANGES.values(), strict=True)
    ]
    return Augmentation(shares[0] < 0.5, *values)


def _span(side: int, zoom: float, at: float) -> tuple[int, int]:
    kept = max(1, math.floor(side * zoom + 0.5))
    start = math.floor(at * (side - kept) + 0.5)
    return start, start + kept


def _area(boxes: Boxes) -> npt.NDArray[np.float64]:
    area: npt.NDArray[np.float64] = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    return area


_EXAMPLE = Augmentation(True, 0.9123, 0.25, 0.75, 1.1, 0.95)
