"""Bytes to pixels and back, bounded: nothing is decoded before its size is known and allowed."""

from __future__ import annotations

import io
import struct
import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from utility_gate.errors import (
    ConfigError,
    CorruptImageError,
    ImageTooLargeError,
    NotAnImageError,
)

FORMATS = ("JPEG", "PNG", "WEBP")
"""The formats that are read; anything else is refused, however Pillow was built."""

_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N", "I")

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """What is refused before decoding: more than `max_bytes` encoded, more than `max_pixels`
    (width x height) decoded.

    Raises:
        ConfigError: unless both are positive.
    """

    max_bytes: int = 20 * 1024 * 1024
    max_pixels: int = 50_000_000

    def __post_init__(self) -> None:
        for name in ("max_bytes", "max_pixels"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name}: expected a positive number, got {getattr(self, name)}")


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """One decoded image.

    `pixels` is HWC uint8, RGB, 0-255, upright (EXIF applied); it may be smaller than
    `width` x `height` when the decoder was allowed to scale. `width` and `height` are the
    file's own, upright. `luma_quantization` holds a JPEG's 64 luma steps in zigzag-free
    (row-major) order, else None.
    """

    pixels: Pixels
    format: str
    width: int
    height: int
    luma_quantization: tuple[int, ...] | None


def decode(
    data: bytes, limits: DecodeLimits | None = None, *, scale_to: int | None = None
) -> DecodedImage:
    """Decode JPEG, PNG or WebP bytes to upright RGB.

    Grey is repeated over the channels, CMYK converted, 16 bits per channel scaled to 8 (not
    clipped), transparency laid over white, animations represented by their first frame.

    Args:
        data: the encoded image.
        limits: what to refuse before decoding.
        scale_to: if given, a JPEG may be scaled by its decoder (a power of two, in the DCT
            domain) as long as neither side falls below this many pixels. Several times
            faster on large photographs; a predictor must be trained and served with the same.

    Raises:
        NotAnImageError: empty, or none of `FORMATS`.
        CorruptImageError: truncated or damaged.
        ImageTooLargeError: over a limit; nothing was decoded.
    """
    limits = limits or DecodeLimits()
    if not data:
        raise NotAnImageError("expected the bytes of a JPEG, PNG or WebP image, got 0 bytes")
    if len(data) > limits.max_bytes:
        raise ImageTooLargeError(
            f"expected at most {limits.max_bytes} bytes, got {len(data)}; send a smaller file"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's bomb and EXIF warnings; limits are ours
        image = _open(data)
        _check_pixels(image, limits)
        try:
            return _load(image, scale_to)
        except (
            OSError,
            SyntaxError,
            ValueError,
            EOFError,
            IndexError,
            KeyError,
            TypeError,
            OverflowError,
            struct.error,
            Image.DecompressionBombError,
        ) as error:
            raise CorruptImageError(
                f"the {image.format} data is truncated or damaged ({error}); send the file again"
            ) from error


def _open(data: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError as error:
        raise NotAnImageError(
            f"expected a JPEG, PNG or WebP image, got {len(data)} bytes that begin with "
            f"{data[:8].hex(' ')}"
        ) from error
    except Image.DecompressionBombError as error:
        raise ImageTooLargeError(f"the image claims too many pixels: {error}") from error
    except Exception as error:  # a parser fed hostile bytes may raise anything
        raise CorruptImageError(
            f"the image header is truncated or damaged ({error}); send the file again"
        ) from error


def _check_pixels(image: Image.Image, limits: DecodeLimits) -> None:
    width, height = image.size
    if width * height > limits.max_pixels:
        raise ImageTooLargeError(
            f"expected at most {limits.max_pixels} pixels, got {width} x {height} = "
            f"{width * height}; scale the image down"
        )
    if width < 1 or height < 1:
        raise CorruptImageError(f"expected at least one pixel, got {width} x {height}")


def _load(image: Image.Image, scale_to: int | None) -> DecodedImage:
    width, height = image.size
    # Phones write MPO: a JPEG followed by further pictures, of which the first counts.
    format_ = "JPEG" if image.format in ("JPEG", "MPO") else str(image.format)
    quantization = _luma_quantization(image)
    orientation = image.getexif().get(0x0112, 1)
    if scale_to is not None and format_ == "JPEG":
        image.draft(None, (min(scale_to, width), min(scale_to, height)))
    image.load()
    upright = ImageOps.exif_transpose(image)
    if orientation in (5, 6, 7, 8):
        width, height = height, width
    return DecodedImage(
        pixels=np.asarray(_to_rgb(upright)),
        format=format_,
        width=width,
        height=height,
        luma_quantization=quantization,
    )


def _luma_quantization(image: Image.Image) -> tuple[int, ...] | None:
    tables = getattr(image, "quantization", None)
    if not tables or 0 not in tables or len(tables[0]) != 64:
        return None
    return tuple(int(step) for step in tables[0])


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in _SIXTEEN_BIT:
        values = np.asarray(image).astype(np.int64)
        return Image.fromarray((values >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def encode_jpeg(pixels: Pixels, quality: int) -> bytes:
    """Encode HWC uint8 RGB pixels as baseline JPEG, 4:2:0, libjpeg quality 1-100.

    The same pixels give the same bytes for the same Pillow build.

    Raises:
        ValueError: if the quality or the array's shape or type is out of range.
    """
    if not 1 <= quality <= 100:
        raise ValueError(f"expected a JPEG quality in 1..100, got {quality}")
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ValueError(f"expected HWC uint8 RGB, got {pixels.dtype} {pixels.shape}")
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality, subsampling="4:2:0")
    return buffer.getvalue()
