"""Degraded copies as files, for those who ask for them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from utility_gate.errors import TableError
from utility_gate.files import whole_file
from utility_gate.remake import load_source, remake_copy
from utility_gate.types import Label

_SUFFIXES = ((b"\xff\xd8", "jpg"), (b"\x89PNG", "png"), (b"RIFF", "webp"))


def suffix_of(encoded: bytes) -> str:
    """The usual file name suffix of an encoded copy: jpg, png or webp."""
    return next(suffix for start, suffix in _SUFFIXES if encoded.startswith(start))


def keep_copy(folder: Path, digest: str, encoded: bytes) -> None:
    """Store a copy below `folder` by its digest, whole or not at all.

    Raises:
        TableError: if it cannot be written.
    """
    file = _file(folder, digest, suffix_of(encoded))
    try:
        with whole_file(file, shared=True) as partial:
            partial.write_bytes(encoded)
    except OSError as error:
        raise TableError(f"{file}: the copy could not be kept: {error}") from error


def keep_missing(folder: Path, images: Path, labels: Sequence[Label]) -> None:
    """Make the copies again that are not in `folder` yet: those of sources that were observed
    before anybody asked to keep them.

    Raises:
        TableError: if a source has changed, or a copy cannot be kept.
    """
    missing = [label for label in labels if not _is_kept(folder, label.image_digest)]
    for source, own in groupby(missing, lambda label: label.source):
        first, *rest = own
        pixels = load_source(images, source, first.source_digest)
        for label in (first, *rest):
            keep_copy(folder, label.image_digest, remake_copy(pixels, label))


def _file(folder: Path, digest: str, suffix: str) -> Path:
    return folder / digest[:2] / f"{digest}.{suffix}"


def _is_kept(folder: Path, digest: str) -> bool:
    return any(_file(folder, digest, suffix).exists() for _, suffix in _SUFFIXES)
