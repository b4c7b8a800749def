"""Labelled copies: made again from their sources, checked against the table, kept encoded."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, WeightedRandomSampler

from utility_gate.degrade import OWN_COPIES
from utility_gate.errors import TableError
from utility_gate.images import Pixels, decode
from utility_gate.preprocess import Preprocess
from utility_gate.remake import remake_source
from utility_gate.split import unit_hash
from utility_gate.tables import read_labels, read_metadata
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


def is_validation(label: Label, fraction: float) -> bool:
    """Whether a training source is kept for stopping and calibration; by its content alone."""
    return label.split == "train" and unit_hash("validation", label.source_digest) < fraction


def load_sides(
    tables: Sequence[Path], images: Path, targets: Targets, validation_fraction: float
) -> Sides:
    """The labelled copies of one or more tables, made again from the sources below `images`.

    Further tables may label other copies of the same sources (more qualities) by the same
    networks and rule. They add to training alone, as do augmented sources: validation and test
    copies are the decided ones of the first table's sources as they are, so that calibration and
    measurement keep its mix.

    Raises:
        TableError: if the tables disagree, a source is missing or other than the tables', a copy
            comes out with other bytes (another JPEG encoder), or a side lacks one of the classes.
    """
    _check_agreement(tables)
    by_source: dict[str, list[Label]] = defaultdict(list)
    for label in _choose(tables, targets, validation_fraction):
        by_source[label.source].append(label)
    with ThreadPoolExecutor() as pool:
        made = pool.map(lambda item: _remake(images, item[0], item[1], targets), by_source.items())
        copies = [copy for source in made for copy in source]
    sides = Sides([], [], [])
    for copy in copies:
        if copy.label.split == "test":
            sides.test.append(copy)
        elif is_validation(copy.label, validation_fraction):
            sides.validation.append(copy)
        else:
            sides.train.append(copy)
    _check_classes(sides, tables, validated=validation_fraction > 0)
    return sides


def count_labels(tables: Sequence[Path], validation_fraction: float) -> dict[str, dict[str, int]]:
    """Sources and copies by side and label in the first table, undecided ones included."""
    counts: dict[str, Counter[str]] = {name: Counter() for name in ("train", "validation", "test")}
    sources: dict[str, set[str]] = {name: set() for name in counts}
    names = {1: "useful", 0: "non_useful", None: "undecided"}
    for label in read_labels(tables[0]):
        side = "validation" if is_validation(label, validation_fraction) else label.split
        if label.augmentation and side != "train":
            continue
        counts[side][names[label.label]] += 1
        sources[side].add(label.source)
    return {
        side: {
            "sources": len(sources[side]),
            **{name: counts[side][name] for name in names.values()},
        }
        for side in counts
    }


def _check_agreement(tables: Sequence[Path]) -> None:
    """Labels of different networks or rules mean different things."""
    first, *others = (_meaning(read_metadata(table)) for table in tables)
    for table, meaning in zip(tables[1:], others, strict=True):
        if meaning != first:
            raise TableError(
                f"{table}: expected labels made as in {tables[0]}, {first}, got {meaning}"
            )


def _meaning(metadata: dict[str, Any]) -> dict[str, Any]:
    networks = metadata.get("networks", {})
    return {
        "voters": {name: networks.get(name) for name in metadata.get("voters", [])},
        **{key: metadata.get(key) for key in ("task", "rule", "reference", "test_fraction")},
    }


def _choose(
    tables: Sequence[Path], targets: Targets, validation_fraction: float
) -> Iterable[Label]:
    """The labels that some side takes; a copy in two tables counts once, with the first label."""
    rows: dict[tuple[str, ...], Label] = {}
    for number, table in enumerate(tables):
        for label in read_labels(table):
            held_out = label.split == "test" or is_validation(label, validation_fraction)
            wanted = "unanimous" if held_out else targets
            # Augmented sources were chosen by their labels: to learn from, not to measure by.
            if held_out and (number > 0 or label.augmentation):
                continue
            if target_of(label, wanted) is not None:
                key = (label.source, label.augmentation, label.degradation, label.parameters)
                rows.setdefault(key, label)
    return rows.values()


def _check_classes(sides: Sides, tables: Sequence[Path], *, validated: bool) -> None:
    for name in ("train", "validation", "test") if validated else ("train", "test"):
        classes = {copy.label.label for copy in getattr(sides, name)}
        if not {0, 1} <= classes:
            raise TableError(
                f"{', '.join(map(str, tables))}: expected useful and non-useful copies on the "
                f"{name} side, got only {sorted(map(str, classes))}; label more images"
            )


def _remake(images: Path, source: str, labels: list[Label], targets: Targets) -> list[LabelledCopy]:
    made = zip(labels, remake_source(images, source, labels), strict=True)
    aimed = ((label, copy, target_of(label, targets)) for label, copy in made)
    return [
        LabelledCopy(label, copy, target) for label, copy, target in aimed if target is not None
    ]


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
