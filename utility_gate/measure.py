"""Cheap measurements that explain a verdict; the decision itself never depends on them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from utility_gate.images import DecodedImage, Pixels
from utility_gate.types import Reason, ReasonKind

# Annex K, table K.1 of the JPEG standard (ITU-T T.81): luma steps at libjpeg quality 50.
_STANDARD_LUMA = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ],
    dtype=np.float64,
).ravel()


@dataclass(frozen=True, slots=True)
class MeasureLimits:
    """Beyond these a reason is given. Units as in `ReasonKind`. The luma defaults lie outside the
    0.5 % and 99.5 % quantiles of 2,000 ImageNet photographs (`tools/measure_quantiles.py`)."""

    jpeg_quality: float = 20.0
    min_side: float = 64.0
    sharpness: float = 45.0
    dark: float = 25.0
    bright: float = 235.0
    contrast: float = 15.0


def libjpeg_luma(quality: int) -> npt.NDArray[np.int64]:
    """The 64 luma steps, row-major, that libjpeg writes at a quality in 1..100.

    The scaling is libjpeg's `jpeg_quality_scaling`: 5000 / q below 50, 200 - 2 q from there.
    """
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    steps: npt.NDArray[np.int64] = ((_STANDARD_LUMA * scale + 50) // 100).astype(np.int64)
    return steps.clip(1, 255)


_LOG_LUMA_BY_QUALITY = np.log(np.stack([libjpeg_luma(quality) for quality in range(1, 101)]))


def estimate_jpeg_quality(luma_quantization: tuple[int, ...]) -> int:
    """The libjpeg quality, 1-100, whose luma steps are nearest (in log) to these 64.

    Exact for files written by libjpeg and its descendants; an estimate for other encoders. It
    is the quality of the last compression only.
    """
    steps = np.log(np.maximum(np.asarray(luma_quantization, np.float64), 1.0))
    distance = np.abs(_LOG_LUMA_BY_QUALITY - steps).sum(axis=1)
    return int(distance.argmin()) + 1


def luma(crop: Pixels) -> npt.NDArray[np.float32]:
    """(H, W, 3) uint8 RGB to (H, W) float32 luma, 0-255 (ITU-R BT.601)."""
    weights = np.array([0.299, 0.587, 0.114], np.float32)
    result: npt.NDArray[np.float32] = crop.astype(np.float32) @ weights
    return result


def sharpness(gray: npt.NDArray[np.float32]) -> float:
    """Variance of the 4-neighbour Laplacian of luma, in luma levels squared."""
    laplacian = (
        gray[:-2, 1:-1] + gray[2:, 1:-1] + gray[1:-1, :-2] + gray[1:-1, 2:] - 4 * gray[1:-1, 1:-1]
    )
    return float(laplacian.var())


def blocking(image: DecodedImage) -> float:
    """How far the borders of JPEG's 8 x 8 blocks stand out, whatever the file says of itself.

    The green channel's steps between neighbouring columns, each against its own neighbours', are
    averaged by their place in a block; this is by how much the strongest place exceeds the next
    one, in mean steps. About 0 for a photograph, above 0.25 where blocks are seen, 0 for images
    that are too small, or were scaled too much while they were decoded, to tell. It looks at 64
    rows of at most 384 columns in the middle, which takes tens of microseconds.
    """
    height, width = image.pixels.shape[:2]
    period = round(8 * width / image.width)
    top, left = max(0, height // 2 - 32), max(0, (width - 385) // 2)
    strip = image.pixels[top : top + 64, left : left + 385, 1].astype(np.int16)
    steps = np.abs(np.diff(strip, axis=1)).mean(0, dtype=np.float64)
    excess = steps[1:-1] - (steps[:-2] + steps[2:]) / 2
    blocks = len(excess) // period if period >= 4 else 0
    if blocks < 8:
        return 0.0
    places = np.sort(excess[: blocks * period].reshape(blocks, period).mean(0))
    return float((places[-1] - places[-2]) / (steps.mean() + 0.5))


def measure(
    image: DecodedImage, crop: Pixels, limits: MeasureLimits, min_side: float = 0.0
) -> tuple[Reason, ...]:
    """What is wrong with an image.

    Args:
        image: the decoded image, for its size and quantisation tables.
        crop: the square that the predictor sees, (S, S, 3) uint8 RGB; luma is measured on it.
        limits: beyond which a reason is given.
        min_side: the shortest side that the predictor judges, pixels; the larger of this and
            `limits.min_side` counts.
    """
    found: list[Reason] = []

    def below(kind: ReasonKind, value: float, limit: float, text: str) -> None:
        if value < limit:
            found.append(Reason(kind, value, limit, f"{text} {value:.4g}, below {limit:g}"))

    short = min(image.width, image.height)
    side_limit = max(limits.min_side, min_side)
    below(ReasonKind.TOO_SMALL, short, side_limit, "the shorter side in pixels is")
    if image.luma_quantization is not None:
        quality = estimate_jpeg_quality(image.luma_quantization)
        below(
            ReasonKind.LOW_JPEG_QUALITY, quality, limits.jpeg_quality, "the JPEG quality is about"
        )
    gray = luma(crop)
    mean, contrast = float(gray.mean()), float(gray.std())
    below(ReasonKind.TOO_DARK, mean, limits.dark, "the mean luma is")
    if mean > limits.bright:
        text = f"the mean luma is {mean:.4g}, above {limits.bright:g}"
        found.append(Reason(ReasonKind.TOO_BRIGHT, mean, limits.bright, text))
    below(ReasonKind.LOW_CONTRAST, contrast, limits.contrast, "the contrast of luma is")
    below(ReasonKind.BLURRED, sharpness(gray), limits.sharpness, "the sharpness is")
    return tuple(found)
