"""Labelled copies, made again from their sources and checked against the table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from utility_gate.augment import parse
from utility_gate.degrade import describe, from_json
from utility_gate.errors import ImageError, TableError
from utility_gate.files import digest_bytes
from utility_gate.images import Pixels, decode
from utility_gate.types import Label


def load_source(images: Path, source: str, digest: str) -> Pixels:
    """The decoded source of a label, HWC uint8 RGB.

    Raises:
        TableError: if it is missing, no image, or another file than the labelled one.
    """
    try:
        data = (images / source).read_bytes()
        pixels = decode(data).pixels
    except (OSError, ImageError) as error:
        raise TableError(f"{source}: expected this source below {images}: {error}") from error
    if digest_bytes(data) != digest:
        raise TableError(f"{images / source}: is not the image that was labelled (SHA-256 differs)")
    return pixels


def remake_copy(pixels: Pixels, label: Label) -> bytes:
    """The encoded copy that a label speaks of, from its source's pixels.

    Raises:
        TableError: if it comes out with other bytes (another encoder), or the table names a
            degradation that is none.
    """
    try:
        degradation = from_json(label.degradation, label.parameters)
        shown = parse(label.augmentation).apply(pixels) if label.augmentation else pixels
    except ValueError as error:
        raise TableError(f"{label.source}: cannot be made again: {error}") from error
    copy = degradation.apply(shown, label.key)
    if digest_bytes(copy) != label.image_digest:
        raise TableError(
            f"{label.source}, {describe(degradation)}: this Pillow encodes other bytes than the "
            "one that labelled; label again, or install the versions in the table's metadata"
        )
    return copy


def remake_source(images: Path, source: str, labels: Sequence[Label]) -> Iterator[bytes]:
    """The copies that `labels` of one source speak of, in their order.

    Raises:
        TableError: see `load_source` and `remake_copy`.
    """
    pixels = load_source(images, source, labels[0].source_digest)
    for label in labels:
        yield remake_copy(pixels, label)
