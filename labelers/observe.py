"""One source image through its degradations and past every network; no engine, no files out."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from labelers.classifiers import ClassifierLook
from labelers.config import LabelConfig
from labelers.copies import keep_copy
from labelers.detectors import DetectorLook
from labelers.images import ImageBatch
from labelers.networks import (
    Classifier,
    Network,
    NetworkFacts,
    facts_of,
    fingerprint,
    open_network,
)
from labelers.truth import Truth
from utility_gate.augment import parse
from utility_gate.degrade import PRISTINE, Degradation, View, to_json
from utility_gate.errors import CorruptImageError, ImageError
from utility_gate.files import digest_bytes, read_source
from utility_gate.images import DecodeLimits, Pixels, decode
from utility_gate.tables import OBSERVATION_SCHEMAS, to_table
from utility_gate.types import Copy

BATCH_PIXELS = 40_000_000
"""Copies of large photographs go past the networks in several batches, or memory would run out."""


@dataclass(frozen=True, slots=True)
class WorkItem:
    """One source to be observed: `number` in the job's order, what is true of it, how it is
    augmented first ("" for not at all), and which copies are made."""

    number: int
    truth: Truth
    augmentation: str
    degradations: tuple[Degradation, ...]


@dataclass(frozen=True, slots=True)
class Observed:
    """A source's observations (columns of its task), the seconds that the networks' forward
    passes took of `seconds`, and the fingerprint of the networks that looked."""

    number: int
    source_digest: str
    table: pa.Table
    forward_seconds: float
    seconds: float
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Skipped:
    """A source that could not be observed, and why; digest None if it could not be read."""

    number: int
    source_digest: str | None
    reason: str


Outcome = Observed | Skipped
Look = ClassifierLook | DetectorLook
Shown = tuple[Copy, View, Pixels]
"""A copy, the part of the source that it shows, and its pixels."""


@dataclass(frozen=True, slots=True)
class ObserverSpec:
    """All that a process needs to observe: pickled to workers, wherever they are."""

    config: LabelConfig
    images: Path
    networks_file: Path | None = None
    category_names: tuple[tuple[int, str], ...] = ()
    keep_copies: Path | None = None


class Observer:
    """Holds the opened networks of one process.

    Raises:
        NetworkError: if a network cannot be opened.
    """

    def __init__(self, spec: ObserverSpec) -> None:
        self.spec = spec
        self.networks = open_networks(spec.config, spec.networks_file)
        self._fingerprint = fingerprint([facts_of(network) for network in self.networks])

    def observe(self, item: WorkItem) -> Outcome:
        """Read, decode, degrade and look; an image that cannot be read is skipped.

        Raises:
            NetworkError: if a network's output is unusable.
            TableError: if the true class is none of a network's, or a copy cannot be kept.
        """
        started = time.perf_counter()
        digest = None
        try:
            data = read_source(self.spec.images / item.truth.path)
            digest = digest_bytes(data)
            pixels = _decode_source(data, item.truth)
        except OSError as error:
            # Without the place where the images lie: tables are compared by byte.
            return Skipped(item.number, None, error.strerror or str(error))
        except ImageError as error:
            return Skipped(item.number, digest, str(error))
        pixels, truth = _augment(pixels, item.truth, item.augmentation)
        looks = [_start(network, truth, self.spec) for network in self.networks]
        rows: list[list[Any]] = [[] for _ in looks]
        try:
            for batch in _batches(_copies(item, digest, pixels, self.spec.keep_copies)):
                copies, views = [copy for copy, _, _ in batch], [view for _, view, _ in batch]
                images = ImageBatch([image for _, _, image in batch])
                for look, own in zip(looks, rows, strict=True):
                    own += look.look(copies, views, images)
        except ImageError as error:  # a copy that its format cannot hold
            return Skipped(item.number, digest, str(error))
        table = to_table(
            (row for own in rows for row in own), OBSERVATION_SCHEMAS[self.spec.config.task]
        )
        return Observed(
            item.number,
            digest,
            table,
            forward_seconds=sum(look.forward_seconds for look in looks),
            seconds=time.perf_counter() - started,
            fingerprint=self._fingerprint,
        )


def describe_networks(spec: ObserverSpec) -> tuple[NetworkFacts, ...]:
    """Open the networks, say what they are, and let them go again.

    Raises:
        NetworkError: if one cannot be opened.
    """
    networks = open_networks(spec.config, spec.networks_file)
    return tuple(facts_of(network) for network in networks)


def open_networks(config: LabelConfig, networks_file: Path | None) -> list[Network]:
    """The voters, then those that only look on.

    Raises:
        NetworkError: if one cannot be opened.
    """
    return [
        open_network(name, networks_file, config.task, config.temperature.get(name, 1.0))
        for name in (*config.networks, *config.observe_only)
    ]


def _decode_source(data: bytes, truth: Truth) -> Pixels:
    image = decode(data, DecodeLimits())
    if image.turned and truth.boxes is not None:
        raise CorruptImageError(
            "expected an image as it lies in the file, got one that its EXIF turns: whether the "
            "boxes are turned too is not known; store it upright"
        )
    if truth.size is not None and truth.size != (image.width, image.height):
        raise CorruptImageError(
            f"expected {truth.size[0]} x {truth.size[1]} pixels as in the ground truth, got "
            f"{image.width} x {image.height}"
        )
    return image.pixels


def _start(network: Network, truth: Truth, spec: ObserverSpec) -> Look:
    if isinstance(network, Classifier):
        return ClassifierLook(network, truth)
    names = dict(spec.category_names)
    return DetectorLook(network, truth, names, spec.config.reference_score)


def _augment(pixels: Pixels, truth: Truth, augmentation: str) -> tuple[Pixels, Truth]:
    if not augmentation:
        return pixels, truth
    chosen = parse(augmentation)
    if truth.boxes is not None and truth.categories is not None:
        height, width = pixels.shape[:2]
        boxes, kept = chosen.boxes(np.array(truth.boxes).reshape(-1, 4), width, height)
        truth = replace(
            truth,
            boxes=tuple((x0, y0, x1, y1) for x0, y0, x1, y1 in boxes[kept].tolist()),
            categories=tuple(c for c, keep in zip(truth.categories, kept, strict=True) if keep),
        )
    return chosen.apply(pixels), truth


def _batches(shown: Iterable[Shown]) -> Iterator[list[Shown]]:
    """So many copies at a time as `BATCH_PIXELS` allows, at least one."""
    batch: list[Shown] = []
    total = 0
    for one in shown:
        size = one[2].shape[0] * one[2].shape[1]
        if batch and total + size > BATCH_PIXELS:
            yield batch
            batch, total = [], 0
        batch.append(one)
        total += size
    yield batch


def _copies(item: WorkItem, digest: str, pixels: Pixels, keep: Path | None) -> Iterator[Shown]:
    """The pristine image, then each copy: encoded once, decoded once."""
    height, width = pixels.shape[:2]
    pristine = Copy(
        source=item.truth.path,
        source_digest=digest,
        augmentation=item.augmentation,
        degradation=PRISTINE,
        parameters="{}",
        quality=None,
        image_digest=digest_bytes(pixels.tobytes()) if item.augmentation else digest,
    )
    yield pristine, (0.0, 0.0, float(width), float(height)), pixels
    for degradation in item.degradations:
        encoded, shown = degradation.copy(pixels, pristine.key)
        copy = replace(
            pristine,
            degradation=degradation.name,
            parameters=to_json(degradation),
            quality=degradation.quality,
            image_digest=digest_bytes(encoded),
        )
        if keep is not None:
            keep_copy(keep, copy.image_digest, encoded)
        yield copy, degradation.view(width, height, pristine.key), shown
