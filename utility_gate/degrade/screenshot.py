"""What a screen showed, stored without loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import PIL
from PIL import Image

from utility_gate.degrade.base import Degradation
from utility_gate.degrade.checks import rgb, whole
from utility_gate.degrade.codecs import encode_png, png_encoder
from utility_gate.degrade.scale import scaled_size
from utility_gate.images import Pixels


@dataclass(frozen=True, slots=True)
class Screenshot(Degradation):
    """The image as a screen showed it: its longer side scaled to `side` pixels, up or down, by
    bilinear resampling, and stored as PNG."""

    name: ClassVar[str] = "screenshot"
    severities: ClassVar = tuple({"side": side} for side in (480, 400, 320, 240, 160))

    side: int

    def __post_init__(self) -> None:
        whole(self.side, "a longer side in pixels", 1, 16_384)

    def apply(self, pixels: Pixels, key: str = "") -> bytes:
        """The screenshot as PNG."""
        height, width = rgb(pixels).shape[:2]
        size = self.size(width, height, key)
        if size != (width, height):
            shown = Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR)
            pixels = np.asarray(shown)
        return encode_png(pixels)

    def size(self, width: int, height: int, key: str = "") -> tuple[int, int]:  # noqa: ARG002
        """Width and height on the screen, rounded to whole pixels, at least one."""
        return scaled_size(width, height, self.side)

    @property
    def label(self) -> str:
        """The longer side."""
        return f"screenshot {self.side}px"

    def encoder(self) -> dict[str, Any]:
        """Provenance of the PNG, and who scaled."""
        return {**png_encoder(), "scaling": f"Pillow {PIL.__version__}"}
