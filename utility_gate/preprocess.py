"""From decoded pixels to a network's input; weights bring theirs along."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from utility_gate.images import Pixels


class Resampling(enum.StrEnum):
    """How pixels are resized; both filters are antialiased."""

    BILINEAR = "bilinear"
    BICUBIC = "bicubic"

    @property
    def filter(self) -> Image.Resampling:
        """Pillow's filter of the same name."""
        return Image.Resampling[self.name]


Fit = Literal["crop", "stretch"]
"""The central square of an image, or all of it, whatever its sides' ratio."""


@dataclass(frozen=True, slots=True)
class Preprocess:
    """Resize the shorter side to `resize`, take the central `crop` x `crop`, then
    (x - mean) / std per channel of 0-255 values, in `order` and `layout`.

    `fit` "stretch" takes the whole image instead, whatever its sides' ratio, and `resize` must be
    `crop`. `dtype` "uint8" hands the pixels over as they are (mean and std must then be 0 and 1).

    Raises:
        ValueError: if a field is out of range.
    """

    resize: int
    crop: int
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    order: str = "rgb"
    layout: str = "nchw"
    dtype: str = "float32"
    resampling: Resampling = Resampling.BICUBIC
    fit: Fit = "crop"

    def __post_init__(self) -> None:
        if not 1 <= self.crop <= self.resize <= 4096:
            raise ValueError(
                f"expected 1 <= crop <= resize <= 4096, got crop {self.crop}, resize {self.resize}"
            )
        if self.fit not in ("crop", "stretch") or (
            self.fit == "stretch" and self.resize != self.crop
        ):
            raise ValueError(
                f"expected fit crop, or stretch with resize = crop, got {self.fit}, {self.resize}, "
                f"{self.crop}"
            )
        if self.order not in ("rgb", "bgr") or self.layout not in ("nchw", "nhwc"):
            raise ValueError(
                f"expected order rgb or bgr and layout nchw or nhwc, got {self.order}, "
                f"{self.layout}"
            )
        if self.dtype not in ("float32", "uint8"):
            raise ValueError(f"expected dtype float32 or uint8, got {self.dtype}")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise ValueError(
                f"expected 3 means and 3 positive stds, got {self.mean} and {self.std}"
            )
        if self.dtype == "uint8" and (any(self.mean) or any(s != 1 for s in self.std)):
            raise ValueError("expected mean 0 and std 1 with dtype uint8, got a normalisation")

    def crop_pixels(self, pixels: Pixels) -> Pixels:
        """The resized central square, or the stretched whole: HWC uint8 RGB in, (crop, crop, 3)
        uint8 RGB out.

        One resampling of just the region that is kept; the geometry is torchvision's
        `Resize(resize)` + `CenterCrop(crop)`.
        """
        height, width = pixels.shape[:2]
        size = (self.crop, self.crop)
        if self.fit == "stretch":
            return np.asarray(Image.fromarray(pixels).resize(size, self.resampling.filter))
        short = min(height, width)
        resized_w = int(width * self.resize / short)
        resized_h = int(height * self.resize / short)
        left = round((resized_w - self.crop) / 2) * width / resized_w
        top = round((resized_h - self.crop) / 2) * height / resized_h
        box = (
            left,
            top,
            min(left + self.crop * width / resized_w, width),
            min(top + self.crop * height / resized_h, height),
        )
        resized = Image.fromarray(pixels).resize(size, self.resampling.filter, box=box)
        return np.asarray(resized)

    def normalize(self, crops: Pixels) -> npt.NDArray[Any]:
        """A batch for the network: (N, crop, crop, 3) uint8 RGB in, `layout` of `dtype` out."""
        batch: npt.NDArray[Any] = crops[..., ::-1] if self.order == "bgr" else crops
        if self.layout == "nchw":
            batch = batch.transpose(0, 3, 1, 2)
        batch = np.ascontiguousarray(batch)
        if self.dtype == "float32":
            # In place and in the order that it lies in: half the time of doing it plainly.
            shape = (3, 1, 1) if self.layout == "nchw" else (3,)
            batch = batch.astype(np.float32)
            batch -= np.array(self.mean, np.float32).reshape(shape)
            batch /= np.array(self.std, np.float32).reshape(shape)
        return batch

    def __call__(self, images: list[Pixels]) -> npt.NDArray[Any]:
        """Decoded images of any sizes to one batch for the network."""
        return self.normalize(np.stack([self.crop_pixels(pixels) for pixels in images]))
