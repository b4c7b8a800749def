"""JPEG compression, once and twice."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from utility_gate.degrade.base import Degradation, View
from utility_gate.degrade.checks import whole
from utility_gate.degrade.codecs import (
    SUBSAMPLINGS,
    decode_copy,
    encode_jpeg,
    jpeg_encoder,
    quantization,
)
from utility_gate.images import Pixels

DEFAULT_QUALITIES = (90, 70, 50, 40, 30, 20, 15, 10, 5)
"""Nine steps, as in the paper (section V), dense where networks begin to fail."""


# `field()` below: without it the base's property `quality` would become the field's default.


@dataclass(frozen=True, slots=True)
class Jpeg(Degradation):
    """JPEG compression at libjpeg quality 1-100; chroma "4:4:4", "4:2:2" or "4:2:0"."""

    name: ClassVar[str] = "jpeg"
    severities: ClassVar = tuple({"quality": quality} for quality in (50, 30, 20, 10, 5))

    quality: int = field()
    subsampling: str = "4:2:0"

    def __post_init__(self) -> None:
        whole(self.quality, "a JPEG quality", 1, 100)
        if self.subsampling not in SUBSAMPLINGS:
            raise ValueError(f"expected a subsampling of {SUBSAMPLINGS}, got {self.subsampling!r}")

    def apply(self, pixels: Pixels, key: str = "") -> bytes:  # noqa: ARG002
        """The encoded copy."""
        return encode_jpeg(pixels, self.quality, self.subsampling)

    @property
    def label(self) -> str:
        """Quality, and the subsampling where it is unusual."""
        unusual = "" if self.subsampling == "4:2:0" else f" {self.subsampling}"
        return f"jpeg {self.quality}{unusual}"

    def encoder(self) -> dict[str, Any]:
        """Library and quantisation tables ("0" luma, "1" chroma), 64 steps row by row."""
        return jpeg_encoder(self.quality)


@dataclass(frozen=True, slots=True)
class JpegTwice(Degradation):
    """JPEG at quality `first`, decoded, and compressed again at `quality`; both 4:2:0.

    In between the image loses its first `shift` (0-7) rows and columns, as when somebody
    cropped it: then the two grids of 8 x 8 blocks do not align. At least one pixel stays.
    """

    name: ClassVar[str] = "jpeg_twice"
    severities: ClassVar = tuple(
        {"first": first, "quality": second, "shift": 4}
        for first, second in ((90, 70), (70, 45), (50, 30), (30, 18), (15, 8))
    )

    first: int
    quality: int = field()
    shift: int = 0

    def __post_init__(self) -> None:
        whole(self.first, "a first JPEG quality", 1, 100)
        whole(self.quality, "a JPEG quality", 1, 100)
        whole(self.shift, "a shift in pixels", 0, 7)

    def apply(self, pixels: Pixels, key: str = "") -> bytes:  # noqa: ARG002
        """The copy as it was encoded the second time."""
        once = decode_copy(encode_jpeg(pixels, self.first))
        top, left = min(self.shift, once.shape[0] - 1), min(self.shift, once.shape[1] - 1)
        return encode_jpeg(once[top:, left:], self.quality)

    def view(self, width: int, height: int, key: str = "") -> View:  # noqa: ARG002
        """All but the rows and columns lost in between."""
        left, top = min(self.shift, width - 1), min(self.shift, height - 1)
        return (float(left), float(top), float(width), float(height))

    @property
    def label(self) -> str:
        """Both qualities and the shift, if any."""
        shifted = f" shifted {self.shift}px" if self.shift else ""
        return f"jpeg_twice {self.first} then {self.quality}{shifted}"

    def encoder(self) -> dict[str, Any]:
        """Of the second compression; the first one's tables as `first_quantization`."""
        first = {str(number): list(table) for number, table in quantization(self.first).items()}
        return {**jpeg_encoder(self.quality), "first_quantization": first}


def ladder(qualities: tuple[int, ...] = DEFAULT_QUALITIES) -> tuple[Jpeg, ...]:
    """One JPEG degradation per quality, best first.

    Raises:
        ValueError: if qualities repeat, are out of range or are none.
    """
    if not qualities or len(set(qualities)) != len(qualities):
        raise ValueError(f"expected distinct JPEG qualities, got {qualities}")
    return tuple(Jpeg(quality) for quality in sorted(qualities, reverse=True))
