"""Pixels to a copy's bytes and back, and which library did it."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image, features

from utility_gate.degrade.checks import rgb
from utility_gate.errors import ImageError
from utility_gate.images import MAX_PIXELS, DecodeLimits, Pixels, decode
from utility_gate.images import encode_jpeg as encode_jpeg_420

SUBSAMPLINGS = ("4:4:4", "4:2:2", "4:2:0")

WEBP_METHOD = 4
"""libwebp's own default between speed (0) and size (6)."""

OWN_COPIES = DecodeLimits(max_bytes=2**31 - 1, max_pixels=MAX_PIXELS)
"""Limits for what was made here: a lossless copy of a photograph is larger than any upload."""


def decode_copy(data: bytes) -> Pixels:
    """What `utility_gate.images.decode` sees in a copy made here; HWC uint8 RGB."""
    return decode(data, OWN_COPIES).pixels


def encode_png(pixels: Pixels) -> bytes:
    """Lossless. The lowest compression level: copies are made anew, not stored."""
    return _save(pixels, "PNG", compress_level=1)


def encode_webp(pixels: Pixels, quality: int) -> bytes:
    """Lossy WebP at quality 0-100; no side may exceed 16383 pixels."""
    return _save(pixels, "WEBP", quality=quality, method=WEBP_METHOD)


def encode_jpeg(pixels: Pixels, quality: int, subsampling: str = "4:2:0") -> bytes:
    """Baseline JPEG at libjpeg quality 1-100 with one of `SUBSAMPLINGS`."""
    if subsampling == "4:2:0":
        return encode_jpeg_420(rgb(pixels), quality)
    return _save(pixels, "JPEG", quality=quality, subsampling=subsampling)


def _save(pixels: Pixels, format_: str, **options: Any) -> bytes:
    image, buffer = Image.fromarray(rgb(pixels)), io.BytesIO()
    try:
        image.save(buffer, format_, **options)
    except (OSError, ValueError) as error:
        height, width = pixels.shape[:2]
        raise ImageError(f"{format_} cannot hold {width} x {height} pixels: {error}") from error
    return buffer.getvalue()


def jpeg_encoder(quality: int) -> dict[str, Any]:
    """Provenance of a JPEG: library and quantisation tables ("0" luma, "1" chroma)."""
    tables = {str(number): list(table) for number, table in quantization(quality).items()}
    return {"format": "JPEG", "library": _jpeg_library(), "quantization": tables}


@lru_cache
def quantization(quality: int) -> dict[int, tuple[int, ...]]:
    """The tables of 64 steps, row by row, that the library writes at this quality."""
    data = encode_jpeg(np.zeros((8, 8, 3), np.uint8), quality)
    with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
        tables: dict[int, list[int]] = image.quantization  # type: ignore[attr-defined]
        return {number: tuple(table) for number, table in tables.items()}


def webp_encoder() -> dict[str, Any]:
    """Provenance of a WebP."""
    library = f"libwebp {features.version('webp')}"
    return {"format": "WEBP", "library": library, "method": WEBP_METHOD}


def png_encoder() -> dict[str, Any]:
    """Provenance of a PNG; its pixels came from NumPy."""
    zlib_ng = features.version("zlib_ng")
    library = f"zlib-ng {zlib_ng}" if zlib_ng else f"zlib {features.version('zlib')}"
    return {"format": "PNG", "library": library, "arithmetic": f"numpy {np.__version__}"}


def _jpeg_library() -> str:
    turbo = features.version("libjpeg_turbo")
    if turbo is None:
        return f"libjpeg {features.version('jpg')}"
    # MozJPEG is a libjpeg-turbo with other tables; older Pillows do not know the word.
    mozjpeg = "mozjpeg" in features.features and features.check("mozjpeg")
    return f"{'mozjpeg' if mozjpeg else 'libjpeg-turbo'} {turbo}"
