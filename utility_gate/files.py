"""Files by content: digests, and where the images are."""

from __future__ import annotations

import hashlib
from pathlib import Path

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp"})


def digest_bytes(data: bytes) -> str:
    """SHA-256 of `data`, 64 hex digits."""
    return hashlib.sha256(data).hexdigest()


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
