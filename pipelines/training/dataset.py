"""Labelled images as a network is trained on them; decoded once, kept small in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset, WeightedRandomSampler
from torchvision.transforms import v2

from pipelines.examples import Example
from pipelines.heads import Head
from pipelines.training.config import Recipe
from pipelines.training.losses import UNKNOWN
from utility_gate.errors import ImageError, TableError
from utility_gate.files import read_source
from utility_gate.images import Pixels, decode
from utility_gate.preprocess import Preprocess, Resampling
from utility_gate.training.module import IMAGENET_MEAN, IMAGENET_STD

MARGIN = 8 / 7
"""How much larger than a network's input images are kept, for crops of them."""

Targets = dict[str, Tensor]


def classifier_preprocess(side: int) -> Preprocess:
    """The preprocessing of a classifier with `side` pixels: all of the image, stretched."""
    return Preprocess(
        side, side, IMAGENET_MEAN, IMAGENET_STD, resampling=Resampling.BILINEAR, fit="stretch"
    )


def decode_all(examples: Sequence[Example], side: int) -> npt.NDArray[np.uint8]:
    """Every image, whole and stretched, (N, side, side, 3) uint8 RGB.

    Raises:
        TableError: if one cannot be decoded.
    """
    preprocess = classifier_preprocess(side)

    def one(example: Example) -> Pixels:
        try:
            image = decode(read_source(example.path), scale_to=side)
        except (OSError, ImageError) as error:
            raise TableError(f"{example.path}: expected an image: {error}") from error
        return preprocess.crop_pixels(image.pixels)

    images = np.empty((len(examples), side, side, 3), np.uint8)
    with ThreadPoolExecutor() as pool:
        for i, pixels in enumerate(pool.map(one, examples)):
            images[i] = pixels
    return images


def to_targets(example: Example, heads: Sequence[Head]) -> Targets:
    """The targets of one image by head: a class number, or (K,) of 0 and 1; `UNKNOWN` if not
    known."""
    targets: Targets = {}
    for head in heads:
        labels = example.labels.get(head.name)
        if head.multi_label:
            row = torch.full((len(head.classes),), UNKNOWN if labels is None else 0)
            row[[head.index(label) for label in labels or ()]] = 1
            targets[head.name] = row
        else:
            targets[head.name] = torch.tensor(UNKNOWN if not labels else head.index(labels[0]))
    return targets


class ImageSetDataset(Dataset[tuple[Tensor, Targets]]):
    """Normalised images (3, S, S) float32 with their targets; augmented if a transform is given."""

    def __init__(
        self,
        examples: Sequence[Example],
        heads: Sequence[Head],
        recipe: Recipe,
        *,
        augment: bool,
    ) -> None:
        self._targets = [to_targets(example, heads) for example in examples]
        kept = round(recipe.side * MARGIN) if augment else recipe.side
        self._images = decode_all(examples, kept)
        self._transform = augmentation(recipe) if augment else None

    def __len__(self) -> int:
        return len(self._targets)

    def __getitem__(self, index: int) -> tuple[Tensor, Targets]:
        image = torch.from_numpy(self._images[index]).permute(2, 0, 1)
        if self._transform is not None:
            image = self._transform(image)
        return normalize(image), self._targets[index]


def augmentation(recipe: Recipe) -> v2.Transform:
    """Crops, mirror images, turns, light and saturation (seeds 000 and 003), on uint8 (3, H, W);
    hue costs ten times the rest of them together."""
    return v2.Compose(
        [
            v2.RandomResizedCrop(
                recipe.side, (recipe.smallest_crop, 1.0), (0.75, 4 / 3), antialias=True
            ),
            v2.RandomHorizontalFlip(),
            v2.RandomApply([v2.RandomAffine(10, shear=8, fill=124)], p=0.2),
            v2.ColorJitter(0.3, 0.3, 0.3),
        ]
    )


def normalize(image: Tensor) -> Tensor:
    """uint8 RGB (..., 3, H, W), 0-255, to the network's input."""
    mean = torch.tensor(IMAGENET_MEAN)[:, None, None]
    std = torch.tensor(IMAGENET_STD)[:, None, None]
    return (image.float() - mean) / std


def count_classes(examples: Sequence[Example], head: Head) -> list[int]:
    """How many of the examples have each class of a head."""
    counts = Counter(label for example in examples for label in example.labels.get(head.name, ()))
    return [counts[label] for label in head.classes]


def class_sampler(examples: Sequence[Example], head: Head, seed: int) -> WeightedRandomSampler:
    """Draws all classes of a head equally often (seed 004, section IV); images without a label are
    drawn as often as the average."""
    counts = dict(zip(head.classes, count_classes(examples, head), strict=True))
    present = sum(count > 0 for count in counts.values())
    mean = present / max(1, sum(counts.values()))
    weights = [
        1 / counts[labels[0]] if (labels := example.labels.get(head.name)) else mean
        for example in examples
    ]
    generator = torch.Generator().manual_seed(seed)
    return WeightedRandomSampler(weights, len(examples), generator=generator)
