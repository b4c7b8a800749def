"""Where a classifier looked, as a picture; numpy and Pillow alone."""

from __future__ import annotations

import io
import math

import numpy as np
import numpy.typing as npt
from PIL import Image

from utility_gate.images import Pixels
from utility_gate.preprocess import Preprocess

LONGEST = 512
"""The longest side of an overlay, pixels."""

SHORTEST = 224
"""Smaller images are enlarged until their longer side has this many pixels."""

MOST_BYTES = 3 * 1024 * 1024
"""What all overlays of one answer take at most: gRPC's clients take messages of 4 MiB unless they
are told otherwise."""

_OPACITY = 0.65
"""Of the map where it is highest; where it is lowest the image shows as it is."""

_RAMP = np.array(
    [
        (0, 0, 4), (31, 12, 72), (85, 15, 109), (136, 34, 106), (186, 54, 85), (227, 89, 51),
        (249, 140, 10), (249, 201, 50), (252, 255, 164),
    ],
    np.float32,
)  # fmt: skip
"""Matplotlib's "inferno" at nine places: equal steps of the map look like equal steps."""

Map = npt.NDArray[np.float32]


def longest_for(count: int) -> int:
    """How long the longer side of each of `count` overlays may be, so that together they keep to
    `MOST_BYTES` whatever they show."""
    room = MOST_BYTES / (max(1, count) * 3.2)  # 3 bytes a pixel, and what PNG adds
    return min(LONGEST, math.isqrt(int(room)))


def draw(pixels: Pixels, activation: Map, longest: int = LONGEST) -> bytes:
    """A PNG of an image (HWC uint8 RGB) with a map (h, w) of all of it laid over it.

    The map is stretched from its lowest to its highest value; one that is the same everywhere, or
    is not finite, shows nothing. The longer side has `SHORTEST` to `longest` pixels.

    Raises:
        ValueError: if an array has another shape.
    """
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
        raise ValueError(f"expected HWC uint8 RGB, got {pixels.dtype} {pixels.shape}")
    if activation.ndim != 2 or 0 in activation.shape:
        raise ValueError(f"expected a map (h, w), got {activation.shape}")
    height, width = pixels.shape[:2]
    longer = max(height, width)
    scale = min(max(longer, SHORTEST), longest) / longer
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    image = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR), np.float32)
    level = _stretch(activation)
    smooth = Image.fromarray(level).resize(size, Image.Resampling.BILINEAR)
    level = np.asarray(smooth).clip(0, 1)
    alpha = (_OPACITY * level)[..., None]
    mixed = image * (1 - alpha) + _colours(level) * alpha
    buffer = io.BytesIO()
    Image.fromarray(mixed.round().clip(0, 255).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def seen(pixels: Pixels, preprocess: Preprocess) -> Pixels:
    """The part of an image that a classifier sees, of which its maps are: all of it, or, where the
    preprocessing crops, the central square."""
    if preprocess.fit == "stretch":
        return pixels
    height, width = pixels.shape[:2]
    short = min(height, width)
    kept = max(1, round(short * preprocess.crop / preprocess.resize))
    top, left = (height - kept) // 2, (width - kept) // 2
    return pixels[top : top + kept, left : left + kept]


def _stretch(activation: Map) -> Map:
    level = activation.astype(np.float64)  # in which no span of float32 values overflows
    flat: Map = np.zeros(activation.shape, np.float32)
    if not np.isfinite(level).all():
        return flat
    low, high = float(level.min()), float(level.max())
    span = high - low
    # Of a span below what float32 can tell apart only noise would be seen.
    if span <= 1e-6 * max(1.0, abs(low), abs(high)):
        return flat
    result: Map = ((level - low) / span).astype(np.float32)
    return result


def _colours(level: Map) -> Map:
    """Levels (h, w) in [0, 1] to RGB (h, w, 3) in 0-255."""
    at = np.linspace(0, 1, len(_RAMP))
    channels = [np.interp(level, at, _RAMP[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=-1).astype(np.float32)
