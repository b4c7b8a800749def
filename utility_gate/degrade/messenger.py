"""What messengers do to photographs before they send them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import PIL
from PIL import Image

from utility_gate.degrade.base import Degradation
from utility_gate.degrade.checks import rgb, whole
from utility_gate.degrade.codecs import encode_jpeg, jpeg_encoder
from utility_gate.degrade.scale import scaled_size
from utility_gate.images import Pixels


@dataclass(frozen=True, slots=True)
class Messenger(Degradation):
    """The longer side scaled down to at most `side` pixels (never up), then JPEG 4:2:0."""

    name: ClassVar[str] = "messenger"
    severities: ClassVar = tuple(
        {"side": side, "quality": quality}
        for side, quality in ((1600, 80), (1280, 70), (960, 60), (640, 50), (320, 40))
    )

    side: int
    quality: int = field()

    def __post_init__(self) -> None:
        whole(self.side, "a longer side in pixels", 1, 65_500)  # JPEG's own limit
        whole(self.quality, "a JPEG quality", 1, 100)

    def apply(self, pixels: Pixels, key: str = "") -> bytes:
        """The scaled and encoded copy."""
        height, width = rgb(pixels).shape[:2]
        size = self.size(width, height, key)
        if size != (width, height):
            image = Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS)
            pixels = np.asarray(image)
        return encode_jpeg(pixels, self.quality)

    def size(self, width: int, height: int, key: str = "") -> tuple[int, int]:  # noqa: ARG002
        """Width and height after scaling, rounded to whole pixels, at least one."""
        if max(width, height) <= self.side:
            return (width, height)
        return scaled_size(width, height, self.side)

    @property
    def label(self) -> str:
        """Longer side and quality."""
        return f"messenger {self.side}px jpeg {self.quality}"

    def encoder(self) -> dict[str, Any]:
        """Library and quantisation tables, and who scaled."""
        return {**jpeg_encoder(self.quality), "scaling": f"Pillow {PIL.__version__}"}
