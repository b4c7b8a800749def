"""Files by content: digests, and where the images are."""

from __future__ import annotations

import errno
import hashlib
import stat
from pathlib import Path

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp"})


def digest_bytes(data: bytes) -> str:
    """SHA-256 of `data`, 64 hex digits."""
    return hashlib.sha256(data).hexdigest()


def read_source(path: Path) -> bytes:
    """The bytes of an ordinary file; a pipe or a device would be waited for, perhaps for ever.

    Raises:
        OSError: if it is none, or cannot be read.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "expected an ordinary file")
    return path.read_bytes()


def digest_file(path: Path) -> str:
    """SHA-256 of a file, 64 hex digits; the file is never in memory as a whole.

    Raises:
        OSError: if it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def find_images(roots: list[Path]) -> list[Path]:
    """Every image file below `roots` (files or folders), in sorted order."""
    found: set[Path] = set()
    for root in roots:
        candidates = root.rglob("*") if root.is_dir() else [root]
        found.update(p for p in candidates if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
    return sorted(found)
