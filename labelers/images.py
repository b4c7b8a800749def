"""The copies of one source as the networks take them; what two networks share is made once."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from utility_gate.images import Pixels
from utility_gate.preprocess import Preprocess, Resampling


@dataclass(frozen=True, slots=True)
class ImageBatch:
    """Decoded copies, HWC uint8 RGB of any sizes, with their crops and squares by geometry."""

    pixels: list[Pixels]
    _made: dict[tuple[object, ...], Pixels] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.pixels)

    def crops(self, preprocess: Preprocess) -> Pixels:
        """Resized central squares, or stretched wholes, (N, crop, crop, 3) uint8 RGB; see
        `Preprocess.crop_pixels`."""
        if preprocess.fit == "stretch":
            return self.squares(preprocess.crop, preprocess.resampling)
        key = ("crop", preprocess.resize, preprocess.crop, preprocess.resampling)
        if key not in self._made:
            self._made[key] = np.stack([preprocess.crop_pixels(p) for p in self.pixels])
        return self._made[key]

    def squares(self, side: int, resampling: Resampling) -> Pixels:
        """Whole images resized to squares whatever their shape, (N, side, side, 3) uint8 RGB."""
        key = ("square", side, resampling)
        if key not in self._made:
            images = (Image.fromarray(pixels) for pixels in self.pixels)
            squares = [np.asarray(one.resize((side, side), resampling.filter)) for one in images]
            self._made[key] = np.stack(squares)
        return self._made[key]
