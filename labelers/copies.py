"""Degraded copies as files, for those who ask for them."""

from __future__ import annotations

import os
from pathlib import Path

from utility_gate.errors import TableError

_SUFFIXES = ((b"\xff\xd8", "jpg"), (b"\x89PNG", "png"), (b"RIFF", "webp"))


def suffix_of(encoded: bytes) -> str:
    """The usual file name suffix of an encoded copy: jpg, png or webp."""
    return next(suffix for start, suffix in _SUFFIXES if encoded.startswith(start))


def keep_copy(folder: Path, digest: str, encoded: bytes) -> None:
    """Store a copy below `folder` by its digest, whole or not at all.

    Raises:
        TableError: if it cannot be written.
    """
    file = folder / digest[:2] / f"{digest}.{suffix_of(encoded)}"
    partial = file.with_name(f"{file.name}.{os.getpid()}.partial")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(encoded)
        partial.replace(file)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise TableError(f"{file}: the copy could not be kept: {error}") from error
