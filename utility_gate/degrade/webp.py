"""Lossy WebP compression."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from utility_gate.degrade.base import Degradation
from utility_gate.degrade.checks import whole
from utility_gate.degrade.codecs import encode_webp, webp_encoder
from utility_gate.images import Pixels


@dataclass(frozen=True, slots=True)
class Webp(Degradation):
    """Lossy WebP at libwebp quality 0-100, method 4.

    The parameter is called `quality` in TOML and tables. The field is called `level`, because
    a degradation's `quality` is a JPEG quality and the two scales differ.
    """

    name: ClassVar[str] = "webp"
    severities: ClassVar = tuple({"quality": quality} for quality in (70, 45, 25, 10, 0))

    level: int = field(metadata={"key": "quality"})

    def __post_init__(self) -> None:
        whole(self.level, "a WebP quality", 0, 100)

    def apply(self, pixels: Pixels, key: str = "") -> bytes:  # noqa: ARG002
        """The encoded copy."""
        return encode_webp(pixels, self.level)

    @property
    def label(self) -> str:
        """The WebP quality."""
        return f"webp {self.level}"

    def encoder(self) -> dict[str, Any]:
        """Library and method."""
        return webp_encoder()
