"""Photographs decoded once and kept as one memory-mapped array of squares."""

from __future__ import annotations

import json
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from utility_gate.errors import ImageError, TableError
from utility_gate.files import digest_bytes, find_images
from utility_gate.images import Pixels, decode
from utility_gate.preprocess import Preprocess
from utility_gate.split import split_of

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PhotoCache:
    """Square photographs: `pixels` is (N, side, side, 3) uint8 RGB, memory-mapped; `digests`
    are the SHA-256 of the N files; `roots` says below which root each was found."""

    pixels: Pixels
    digests: tuple[str, ...]
    roots: tuple[int, ...]


def build_cache(roots: list[Path], folder: Path, side: int = 256) -> PhotoCache:
    """Decode every photograph below `roots` that is not held out (see `split_of`), resize its
    shorter side to `side`, keep the central square, and store all in `folder`.

    A finished cache of the same files and side is reused. Unreadable files are logged and
    left out.

    Raises:
        TableError: if no photograph is found.
    """
    files = [(number, path) for number, root in enumerate(roots) for path in find_images([root])]
    key = {"side": side, "files": [_identity(number, path) for number, path in files]}
    index = folder / "index.json"
    if index.exists():
        stored = json.loads(index.read_text())
        if stored["key"] == key:
            return _open_cache(folder, stored)
    folder.mkdir(parents=True, exist_ok=True)
    index.unlink(missing_ok=True)
    squares = Preprocess(resize=side, crop=side)

    def read(file: tuple[int, Path]) -> tuple[str, int, Pixels] | None:
        number, path = file
        data = path.read_bytes()
        digest = digest_bytes(data)
        if split_of(digest) == "test":
            return None
        try:
            return digest, number, squares.crop_pixels(decode(data).pixels)
        except ImageError as error:
            log.warning("%s is left out: %s", path, error)
            return None

    digests: dict[str, int] = {}
    array = np.lib.format.open_memmap(
        folder / "pixels.partial.npy", mode="w+", dtype=np.uint8, shape=(len(files), side, side, 3)
    )
    with ThreadPoolExecutor() as pool:
        for item in pool.map(read, files):
            if item is not None and item[0] not in digests:
                array[len(digests)] = item[2]
                digests[item[0]] = item[1]
    if not digests:
        raise TableError(f"expected photographs below {', '.join(map(str, roots))}, found none")
    array.flush()
    (folder / "pixels.partial.npy").rename(folder / "pixels.npy")
    stored = {"key": key, "digests": list(digests), "roots": list(digests.values())}
    index.write_text(json.dumps(stored))
    log.info("%d photographs cached in %s (%d files seen)", len(digests), folder, len(files))
    return _open_cache(folder, stored)


def _identity(number: int, path: Path) -> str:
    status = path.stat()
    return f"{number}:{path}:{status.st_size}:{status.st_mtime_ns}"


def _open_cache(folder: Path, stored: dict[str, Any]) -> PhotoCache:
    pixels = np.load(folder / "pixels.npy", mmap_mode="r")
    return PhotoCache(pixels, tuple(stored["digests"]), tuple(stored["roots"]))
