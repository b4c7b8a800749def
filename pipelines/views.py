"""Test-time augmentation: the same image, seen a little differently."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from pipelines.classifier import Answer, Classifier, Floats
from utility_gate.images import Pixels

KEPT = 0.875
"""How much of each side a corner view shows."""


def make_views(pixels: Pixels) -> list[Pixels]:
    """The image, its mirror image, and its four corners, every second one mirrored; HWC uint8 RGB
    (seed 000, section 5 averages over augmented versions of an image)."""
    height, width = pixels.shape[:2]
    h, w = max(1, round(KEPT * height)), max(1, round(KEPT * width))
    corners = [
        pixels[:h, :w], pixels[:h, width - w :][:, ::-1],
        pixels[height - h :, :w][:, ::-1], pixels[height - h :, width - w :],
    ]  # fmt: skip
    return [pixels, *(np.ascontiguousarray(view) for view in (pixels[:, ::-1], *corners))]


def mean_probabilities(answers: Sequence[Mapping[str, Answer]]) -> dict[str, Floats]:
    """The mean over views, by head, (K,)."""
    return {
        name: np.mean([answer[name].probabilities for answer in answers], axis=0)
        for name in answers[0]
    }


def classify_views(classifier: Classifier, pixels: Pixels) -> dict[str, Floats]:
    """Probabilities (K,) of each head, the mean over `make_views` of one image."""
    return mean_probabilities(classifier.classify(make_views(pixels)))
