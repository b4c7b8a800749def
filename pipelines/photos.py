"""From the bytes that a pipeline is sent to what it looks at."""

from __future__ import annotations

from utility_gate.errors import ImageTooSmallError
from utility_gate.images import DecodedImage, DecodeLimits, decode
from utility_gate.types import ImageInfo

SMALLEST_SIDE = 32
"""Images with a shorter side, in pixels, are refused: an answer on them would be made up."""


def decode_photo(data: bytes, limits: DecodeLimits | None, scale_to: int) -> DecodedImage:
    """Decode a photograph for a pipeline.

    Raises:
        ImageTooSmallError: below `SMALLEST_SIDE`.
        ImageError: as `images.decode`.
    """
    image = decode(data, limits, scale_to=scale_to)
    if min(image.width, image.height) < SMALLEST_SIDE:
        raise ImageTooSmallError(
            f"expected at least {SMALLEST_SIDE} x {SMALLEST_SIDE} pixels, got {image.width} x "
            f"{image.height}; send the photograph itself, not a thumbnail"
        )
    return image


def describe(image: DecodedImage) -> ImageInfo:
    """What was decoded, as answers tell it."""
    return ImageInfo(image.format, image.width, image.height)
