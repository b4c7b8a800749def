"""Files: digests, where the images are, and how one is written whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp"})


@contextmanager
def whole_file(path: Path, *, shared: bool = False) -> Iterator[Path]:
    """A place to write `path` to: it takes the file's name when the block ends well, and is
    removed when it does not. Then the file is on the disk, not in a cache. Folders are made.

    `shared`: several processes may write the same content to this path, and nobody waits for the
    disk.

    Raises:
        OSError: if it cannot be written; whatever else the block raises.
    """
    owner = f".{os.getpid()}" if shared else ""
    partial = path.with_name(f"{path.name}{owner}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        if not shared:
            _sync(partial)
        partial.replace(path)
        if not shared:
            _sync(path.parent)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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


def digest_json(value: object) -> str:
    """SHA-256 of `value` as JSON with sorted keys, 64 hex digits."""
    return digest_bytes(json.dumps(value, sort_keys=True).encode())


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
