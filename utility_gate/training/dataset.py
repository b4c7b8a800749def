"""Labelled copies as a network's input."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, WeightedRandomSampler

from utility_gate.degrade import OWN_COPIES
from utility_gate.images import Pixels, decode
from utility_gate.preprocess import Preprocess
from utility_gate.sides import LabelledCopy
from utility_gate.training.module import IMAGENET_MEAN, IMAGENET_STD


class CopyDataset(Dataset[tuple[Tensor, Tensor]]):
    """(image, target) pairs: normalised float32 (3, side, side), and the target.

    Images go through the decoder and the resampling that the predictor serves with. `augment`
    mirrors at random and crops up to 15 % tighter; neither touches compression.
    """

    def __init__(
        self, copies: list[LabelledCopy], preprocess: Preprocess, scale_to: int, *, augment: bool
    ) -> None:
        self.copies, self.preprocess, self.scale_to = copies, preprocess, scale_to
        self.augment = augment

    def __len__(self) -> int:
        return len(self.copies)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        copy = self.copies[index]
        pixels = decode(copy.data, OWN_COPIES, scale_to=self.scale_to).pixels
        if self.augment:
            pixels = _jitter(pixels)
        batch = self.preprocess([pixels])
        return torch.from_numpy(batch[0]), torch.tensor(copy.target, dtype=torch.float32)


def _jitter(pixels: Pixels) -> Pixels:
    height, width = pixels.shape[:2]
    keep, x, y, flip = torch.rand(4).tolist()
    keep = 0.85 + 0.15 * keep
    kept_h, kept_w = max(1, int(height * keep)), max(1, int(width * keep))
    top, left = int(y * (height - kept_h + 1)), int(x * (width - kept_w + 1))
    window = pixels[top : top + kept_h, left : left + kept_w]
    return np.ascontiguousarray(window[:, ::-1] if flip < 0.5 else window)


def predictor_preprocess(side: int) -> Preprocess:
    """The predictor's preprocessing: the central square, `side` pixels, ImageNet statistics."""
    return Preprocess(resize=side, crop=side, mean=IMAGENET_MEAN, std=IMAGENET_STD)


def balanced_sampler(copies: list[LabelledCopy], samples: int, seed: int) -> WeightedRandomSampler:
    """Draws `samples` copies with replacement; the mean target is 1/2 in expectation.

    Copies aimed above 1/2 and copies aimed below it are drawn with weights such that what the
    former lie above and the latter lie below 1/2 is the same in sum. With hard labels that is
    one draw in two for each class. Copies at exactly 1/2 teach nothing and are not drawn.
    """
    lean = np.array([2 * copy.target - 1 for copy in copies])
    useful, non_useful = lean.clip(0).sum(), (-lean).clip(0).sum()
    weights = np.where(lean > 0, 1 / useful, np.where(lean < 0, 1 / non_useful, 0.0))
    generator = torch.Generator().manual_seed(seed)
    return WeightedRandomSampler(weights.tolist(), samples, replacement=True, generator=generator)
