"""Labelled copies as a network's input."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from utility_gate.augment import parse
from utility_gate.degrade import OWN_COPIES, Degradation, Jpeg, decode_copy, from_json
from utility_gate.images import Pixels, decode, encode_jpeg
from utility_gate.preprocess import Fit, Preprocess
from utility_gate.remake import load_source
from utility_gate.sides import LabelledCopy, LabelledRow
from utility_gate.training.draws import Draw
from utility_gate.training.module import IMAGENET_MEAN, IMAGENET_STD
from utility_gate.training.pixels import PixelStore, store_pixels
from utility_gate.types import Label

RESAVED = (85, 98)
"""JPEG qualities of `reencode`: too high to make a useful copy non-useful."""


class Copies(Protocol):
    """Copies to be shown to a network; picklable, as workers get their own."""

    @property
    def scale_to(self) -> int:
        """The decoder's floor."""

    @property
    def targets(self) -> Sequence[float]:
        """What training aims at for each copy, in [0, 1]."""

    def pixels(self, index: int, random: np.random.Generator) -> Pixels:
        """A copy as the decoder gives it, HWC uint8 RGB; `random` for whatever is drawn anew."""


@dataclass(frozen=True, slots=True)
class EncodedCopies:
    """Copies that are kept encoded and decoded at every look."""

    copies: list[LabelledCopy]
    scale_to: int

    @property
    def targets(self) -> Sequence[float]:
        """See `Copies`."""
        return [copy.target for copy in self.copies]

    def pixels(self, index: int, random: np.random.Generator) -> Pixels:  # noqa: ARG002
        """See `Copies`."""
        return decode(self.copies[index].data, OWN_COPIES, scale_to=self.scale_to).pixels


@dataclass(frozen=True, slots=True)
class DecodedCopies:
    """Copies decoded beforehand, on disk: nothing is left to do but to read them."""

    copies: list[LabelledCopy]
    scale_to: int
    store: PixelStore

    @classmethod
    def make(cls, copies: list[LabelledCopy], scale_to: int, folder: Path) -> DecodedCopies:
        """Decode what is not in `folder` yet.

        Raises:
            TableError: if it cannot be written.
        """
        data = {copy.label.image_digest: copy.data for copy in copies}

        def load(key: str) -> Pixels:
            return decode(data[key], OWN_COPIES, scale_to=scale_to).pixels

        return cls(copies, scale_to, store_pixels(folder, f"copies-{scale_to}", data, load))

    @property
    def targets(self) -> Sequence[float]:
        """See `Copies`."""
        return [copy.target for copy in self.copies]

    def pixels(self, index: int, random: np.random.Generator) -> Pixels:  # noqa: ARG002
        """See `Copies`."""
        return self.store[self.copies[index].label.image_digest]


@dataclass(frozen=True, slots=True)
class FreshCopies:
    """Copies made from their sources at every look, also at JPEG qualities that nobody observed.

    A copy compressed by plain JPEG may be drawn at any quality from its own up to the next
    observed one of the same source, if both have the same target, and so has what lies between;
    a quality observed without a target, as undecided ones are, ends that.
    `upto` holds that next quality for each row (its own where there is none).
    """

    rows: list[LabelledRow]
    scale_to: int
    upto: list[int | None]
    store: PixelStore

    @classmethod
    def make(
        cls,
        rows: list[LabelledRow],
        images: Path,
        scale_to: int,
        folder: Path,
        observed: Iterable[tuple[str, Label]] = (),
    ) -> FreshCopies:
        """Decode the sources that are not in `folder` yet. `observed` are all labels of the tables
        with their tasks, also those without a target.

        Raises:
            TableError: if a source is missing or another file than was labelled, or the folder
                cannot be written.
        """
        paths = {row.label.source_digest: row.label.source for row in rows}
        load = partial(_load, images, paths)
        store = store_pixels(folder, "sources", paths, load)
        return cls(rows, scale_to, _next_qualities(rows, observed), store)

    @property
    def targets(self) -> Sequence[float]:
        """See `Copies`."""
        return [row.target for row in self.rows]

    def pixels(self, index: int, random: np.random.Generator) -> Pixels:
        """See `Copies`."""
        label, upto = self.rows[index].label, self.upto[index]
        pixels = self.store[label.source_digest]
        if label.augmentation:
            pixels = parse(label.augmentation).apply(pixels)
        degradation = _degradation(label.degradation, label.parameters)
        if upto is not None and isinstance(degradation, Jpeg):
            quality = int(random.integers(degradation.quality, max(upto, degradation.quality + 1)))
            degradation = replace(degradation, quality=quality)
        copy = degradation.apply(pixels, label.key)
        return decode(copy, OWN_COPIES, scale_to=self.scale_to).pixels


def _load(images: Path, paths: dict[str, str], digest: str) -> Pixels:
    return load_source(images, paths[digest], digest)


@lru_cache(maxsize=1024)
def _degradation(name: str, parameters: str) -> Degradation:
    return from_json(name, parameters)


def _place(task: str, label: Label) -> tuple[tuple[str, ...], int] | None:
    """The ladder that a plain JPEG copy is on, and its quality."""
    made = _degradation(label.degradation, label.parameters)
    if not isinstance(made, Jpeg):
        return None
    return (task, label.source_digest, label.augmentation, made.subsampling), made.quality


def _next_qualities(
    rows: list[LabelledRow], observed: Iterable[tuple[str, Label]] = ()
) -> list[int | None]:
    """For each plain JPEG copy the next observed quality above it if it has the same target."""
    ladders: dict[tuple[str, ...], list[tuple[int, float]]] = defaultdict(list)
    keys = [_place(row.task, row.label) for row in rows]
    for row, place in zip(rows, keys, strict=True):
        if place is not None:
            ladders[place[0]].append((place[1], row.target))
    known = set(keys)
    for task, label in observed:
        place = _place(task, label)
        if place is not None and place not in known:
            ladders[place[0]].append((place[1], math.nan))  # equal to no target
    for ladder in ladders.values():
        ladder.sort()
    result: list[int | None] = []
    for row, place in zip(rows, keys, strict=True):
        if place is None:
            result.append(None)
            continue
        ladder, quality = ladders[place[0]], place[1]
        at = bisect_right(ladder, (quality, math.inf))
        alike = at < len(ladder) and ladder[at][1] == row.target
        result.append(ladder[at][0] if alike else quality)
    return result


class CopyDataset(Dataset[tuple[Tensor, Tensor]]):
    """(image, target) pairs: normalised float32 (3, side, side), and the target.

    Images go through the resampling that the predictor serves with. `augment` mirrors at random
    and crops up to 15 % tighter; neither touches compression. `reencode` is the share of looks at
    which the copy is shifted by a few pixels and saved once more at a high JPEG quality, or
    scaled a little, as happens on the way: its label stays.
    """

    def __init__(
        self, copies: Copies, preprocess: Preprocess, *, augment: bool, reencode: float = 0.0
    ) -> None:
        self.copies, self.preprocess = copies, preprocess
        self.augment, self.reencode = augment, reencode
        self.targets = copies.targets

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, draw: Draw | int) -> tuple[Tensor, Tensor]:
        index, seed = draw if isinstance(draw, tuple) else (draw, 0)
        batch = self.preprocess([self.show(index, seed)])
        return torch.from_numpy(batch[0]), torch.tensor(self.targets[index], dtype=torch.float32)

    def describe(self) -> dict[str, object]:
        """What decides how a copy is shown, beside the copy and the seed."""
        return {
            "preprocess": asdict(self.preprocess),
            "augment": self.augment,
            "reencode": self.reencode,
            "scale_to": self.copies.scale_to,
        }

    def show(self, index: int, seed: int) -> Pixels:
        """The copy as the network gets it but for its preprocessing, HWC uint8 RGB."""
        random = np.random.default_rng(seed)
        pixels = self.copies.pixels(index, random)
        if self.reencode and random.random() < self.reencode:
            pixels = _reencode(pixels, random)
        return _jitter(pixels, random) if self.augment else pixels


def _jitter(pixels: Pixels, random: np.random.Generator) -> Pixels:
    height, width = pixels.shape[:2]
    keep, x, y, flip = random.random(4).tolist()
    keep = 0.85 + 0.15 * keep
    kept_h, kept_w = max(1, int(height * keep)), max(1, int(width * keep))
    top, left = int(y * (height - kept_h + 1)), int(x * (width - kept_w + 1))
    window = pixels[top : top + kept_h, left : left + kept_w]
    return np.ascontiguousarray(window[:, ::-1] if flip < 0.5 else window)


def _reencode(pixels: Pixels, random: np.random.Generator) -> Pixels:
    height, width = pixels.shape[:2]
    if random.random() < 0.5:
        top, left = (int(random.integers(min(8, side))) for side in (height, width))
        quality = int(random.integers(RESAVED[0], RESAVED[1] + 1))
        return decode_copy(encode_jpeg(np.ascontiguousarray(pixels[top:, left:]), quality))
    scale = float(random.uniform(0.8, 1.25))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))


def predictor_preprocess(side: int, fit: Fit = "crop") -> Preprocess:
    """The predictor's preprocessing: the central square, or all of the image stretched to one, of
    `side` pixels; ImageNet statistics."""
    return Preprocess(resize=side, crop=side, mean=IMAGENET_MEAN, std=IMAGENET_STD, fit=fit)


def make_copies(copies: list[LabelledCopy], scale_to: int, cache: Path | None) -> Copies:
    """The copies as they are, or decoded below `cache`."""
    if cache is None:
        return EncodedCopies(copies, scale_to)
    return DecodedCopies.make(copies, scale_to, cache)
