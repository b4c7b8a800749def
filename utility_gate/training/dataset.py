"""Labelled copies: made again from their sources, checked against the table, kept encoded."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, WeightedRandomSampler

from utility_gate.degrade import Jpeg
from utility_gate.errors import ImageError, TableError
from utility_gate.images import Pixels, decode
from utility_gate.preprocess import Preprocess
from utility_gate.split import digest_bytes, unit_hash
from utility_gate.tables import read_labels
from utility_gate.training.module import IMAGENET_MEAN, IMAGENET_STD
from utility_gate.types import Label

log = logging.getLogger(__name__)

Targets = Literal["unanimous", "votes"]


@dataclass(frozen=True, slots=True)
class LabelledCopy:
    """An encoded degraded copy with its label; `target` in [0, 1] is what training aims at."""

    label: Label
    data: bytes
    target: float


@dataclass(frozen=True, slots=True)
class Sides:
    """The copies to learn from, to stop and calibrate by, and to test on; no source is in two."""

    train: list[LabelledCopy]
    validation: list[LabelledCopy]
    test: list[LabelledCopy]


def target_of(label: Label, targets: Targets) -> float | None:
    """What training aims at for one copy; None leaves it out. See `TrainConfig.targets`."""
    if label.label is not None:
        return float(label.label)
    if targets == "unanimous" or label.useful_votes + label.non_useful_votes == 0:
        return None
    return 0.5 + (label.useful_votes - label.non_useful_votes) / (2 * label.networks)


def load_sides(
    tables: Sequence[Path], images: Path, targets: Targets, validation_fraction: float
) -> Sides:
    """The labelled copies of one or more tables, made again from the sources below `images`.

    Several tables may label different copies of the same sources (further qualities); a copy
    that stands in two of them counts once, with the label of the first.

    Test copies, and validation copies as far as they are decided, are always unanimous.

    Raises:
        TableError: if a source is missing or other than the table's, or a copy comes out with
            other bytes (another JPEG encoder), or a side lacks one of the classes.
    """
    by_source: dict[str, list[Label]] = defaultdict(list)
    for label in _read_all(tables):
        if target_of(label, "unanimous" if label.split == "test" else targets) is not None:
            by_source[label.source].append(label)
    with ThreadPoolExecutor() as pool:
        made = pool.map(lambda item: _remake(images, item[0], item[1], targets), by_source.items())
        copies = [copy for source in made for copy in source]
    sides = Sides([], [], [])
    for copy in copies:
        if copy.label.split == "test":
            sides.test.append(copy)
        elif unit_hash("validation", copy.label.source_digest) < validation_fraction:
            if copy.label.label is not None:
                sides.validation.append(copy)
        else:
            sides.train.append(copy)
    for name in ("train", "validation", "test"):
        classes = {copy.label.label for copy in getattr(sides, name)}
        if not {0, 1} <= classes:
            raise TableError(
                f"{', '.join(map(str, tables))}: expected useful and non-useful copies on the "
                f"{name} side, got only {sorted(map(str, classes))}; label more images"
            )
    return sides


def _read_all(tables: Sequence[Path]) -> Iterable[Label]:
    rows: dict[tuple[str, str, int], Label] = {}
    for table in tables:
        for label in read_labels(table):
            rows.setdefault((label.source, label.degradation, label.quality), label)
    return rows.values()


def _remake(images: Path, source: str, labels: list[Label], targets: Targets) -> list[LabelledCopy]:
    try:
        data = (images / source).read_bytes()
        pixels = decode(data).pixels
    except (OSError, ImageError) as error:
        raise TableError(f"{source}: expected this source below {images}: {error}") from error
    if digest_bytes(data) != labels[0].source_digest:
        raise TableError(f"{images / source}: is not the image that was labelled (SHA-256 differs)")
    copies = []
    for label in labels:
        copy = Jpeg(label.quality).apply(pixels)
        if digest_bytes(copy) != label.image_digest:
            raise TableError(
                f"{source} at quality {label.quality}: this Pillow encodes other bytes than the "
                "one that labelled; label again, or install the version in the table's metadata"
            )
        target = target_of(label, targets)
        if target is None:
            target = float(label.label or 0)
        copies.append(LabelledCopy(label, copy, target))
    return copies


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
        pixels = decode(copy.data, scale_to=self.scale_to).pixels
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
    """Draws `samples` copies with replacement, as much useful as non-useful in expectation."""
    targets = np.array([copy.target for copy in copies])
    useful, non_useful = targets.sum(), (1 - targets).sum()
    weights = targets / useful + (1 - targets) / non_useful
    generator = torch.Generator().manual_seed(seed)
    return WeightedRandomSampler(weights.tolist(), samples, replacement=True, generator=generator)
