"""From a region to what a classifier is shown of it."""

from __future__ import annotations

import math

from pipelines.detector import Box
from utility_gate.images import Pixels

SMALLEST_CROP = 96
"""What is shown has at least this many pixels a side, where the image has them."""

Crop = tuple[int, int, int, int]


def with_context(box: Box, size: tuple[int, int], context: float) -> Crop:
    """What is shown of a region: xyxy, whole pixels of an image of `size` (width, height).

    The region comes with `context` times its width on its left and right, of its height above and
    below.
    """
    left, right = _span(box[0], box[2], size[0], context)
    top, bottom = _span(box[1], box[3], size[1], context)
    return left, top, right, bottom


def cut(pixels: Pixels, crop: Crop, size: tuple[int, int]) -> Pixels:
    """The pixels of a crop that is told in pixels of an image of `size`, which may have been scaled
    down since; at least one."""
    rows = _scaled(crop[1], crop[3], pixels.shape[0], size[1])
    columns = _scaled(crop[0], crop[2], pixels.shape[1], size[0])
    return pixels[rows, columns]


def _span(low: float, high: float, length: int, context: float) -> tuple[int, int]:
    """One side: with context, at least `SMALLEST_CROP` long, inside of 0 to `length`."""
    margin = context * (high - low)
    low, high = max(0.0, low - margin), min(float(length), high + margin)
    least = min(SMALLEST_CROP, length)
    missing = max(0.0, least - (high - low))
    # Where the image ends on one side, the other makes up for it.
    low = min(max(0.0, low - missing / 2), length - least)
    return math.floor(low), math.ceil(max(high, low + least))


def _scaled(low: int, high: int, pixels: int, length: int) -> slice:
    start = min(math.floor(low * pixels / length), pixels - 1)
    return slice(start, max(start + 1, math.ceil(high * pixels / length)))
