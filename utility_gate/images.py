"""Bytes to pixels and back, bounded: nothing is decoded before its size is known and allowed."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from utility_gate.errors import (
    ConfigError,
    CorruptImageError,
    ImageError,
    ImageTooLargeError,
    NotAnImageError,
)
from utility_gate.segments import check_segments

FORMATS = ("JPEG", "PNG", "WEBP")
"""The formats that are read; anything else is refused, however Pillow was built."""

MAX_PIXELS = 89_478_485
"""The most that limits may allow: from there on Pillow itself warns and refuses."""

_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SWAPS_SIDES = (
    Image.Transpose.TRANSPOSE,
    Image.Transpose.ROTATE_270,
    Image.Transpose.TRANSVERSE,
    Image.Transpose.ROTATE_90,
)
_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N", "I")

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """What is refused before decoding: more than `max_bytes` encoded, more than `max_pixels`
    (width x height) decoded. Decoding takes up to about 16 bytes a pixel while it runs.

    Raises:
        ConfigError: unless both are positive and max_pixels is at most `MAX_PIXELS`.
    """

    max_bytes: int = 20 * 1024 * 1024
    max_pixels: int = 50_000_000

    def __post_init__(self) -> None:
        for name in ("max_bytes", "max_pixels"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name}: expected a positive number, got {getattr(self, name)}")
        if self.max_pixels > MAX_PIXELS:
            raise ConfigError(f"max_pixels: expected at most {MAX_PIXELS}, got {self.max_pixels}")


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """One decoded image.

    `pixels` is HWC uint8, RGB, 0-255, upright (EXIF applied); it may be smaller than
    `width` x `height` when the decoder was allowed to scale. `width` and `height` are the
    file's own, upright. `luma_quantization` holds a JPEG's 64 luma steps in zigzag-free
    (row-major) order, else None. `turned` says whether EXIF turned or mirrored the file's pixels.
    """

    pixels: Pixels
    format: str
    width: int
    height: int
    luma_quantization: tuple[int, ...] | None
    turned: bool = False


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
    check_segments(data)
    image = _open(data)
    _check_pixels(image, limits)
    try:
        return _load(image, scale_to)
    except MemoryError:
        raise
    except Exception as error:  # a parser fed hostile bytes may raise anything
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
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
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
    if scale_to is not None and format_ == "JPEG":
        image.draft(None, (min(scale_to, width), min(scale_to, height)))
    image.load()
    turn = _turn(image)
    if turn is not None:
        image = image.transpose(turn)
        if turn in _SWAPS_SIDES:
            width, height = height, width
    return DecodedImage(
        pixels=np.asarray(_to_rgb(image)),
        format=format_,
        width=width,
        height=height,
        luma_quantization=quantization,
        turned=turn is not None,
    )


def _turn(image: Image.Image) -> Image.Transpose | None:
    """What makes the image upright. Cameras write damaged EXIF: then it is taken as it is."""
    try:
        return _TURNS.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # noqa: BLE001 - the pixels are fine, whatever the EXIF parser says
        return None


def _luma_quantization(image: Image.Image) -> tuple[int, ...] | None:
    tables = getattr(image, "quantization", None)
    if not tables or 0 not in tables or len(tables[0]) != 64:
        return None
    return tuple(int(step) for step in tables[0])


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode in _SIXTEEN_BIT:
        values = np.asarray(image)
        if values.dtype != np.uint16:
            values = values.clip(0, 65535).astype(np.uint16)
        return Image.fromarray((values >> 8).astype(np.uint8)).convert("RGB")
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
        ImageError: if a side is longer than a JPEG can hold (65,500 pixels).
    """
    if not 1 <= quality <= 100:
        raise ValueError(f"expected a JPEG quality in 1..100, got {quality}")
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ValueError(f"expected HWC uint8 RGB, got {pixels.dtype} {pixels.shape}")
    buffer = io.BytesIO()
    try:
        Image.fromarray(pixels).save(buffer, "JPEG", quality=quality, subsampling="4:2:0")
    except OSError as error:
        height, width = pixels.shape[:2]
        raise ImageError(f"JPEG cannot hold {width} x {height} pixels: {error}") from error
    return buffer.getvalue()
