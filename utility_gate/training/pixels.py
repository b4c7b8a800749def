"""Decoded images on disk: read once from their files, then mapped into memory by every worker."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from utility_gate.errors import TableError
from utility_gate.files import digest_json, whole_file
from utility_gate.images import Pixels

log = logging.getLogger(__name__)

_AT_ONCE = 256
"""Images decoded before they are written; bounds the memory."""


@dataclass(frozen=True, slots=True)
class PixelStore:
    """Images by key, HWC uint8 RGB, of any sizes; `file` holds their bytes one after the other."""

    file: Path
    places: Mapping[str, tuple[int, int, int]]
    """Where each begins, its height and its width."""

    def __getitem__(self, key: str) -> Pixels:
        """The image; an array of its own."""
        start, height, width = self.places[key]
        shape = (height, width, 3)
        return np.fromfile(self.file, np.uint8, height * width * 3, offset=start).reshape(shape)

    def __len__(self) -> int:
        return len(self.places)


def store_pixels(
    folder: Path, name: str, keys: Iterable[str], load: Callable[[str], Pixels]
) -> PixelStore:
    """The images with these keys, from `folder` if they all lie there already, else from `load`.

    `name` says what the images are; a store of another name or of other keys is another file, so
    several may share the folder. Written whole or not at all; several processes may do it at once.

    Raises:
        TableError: if the folder cannot be written.
    """
    wanted = sorted(set(keys))
    stem = f"{name}-{digest_json([name, wanted])[:16]}"
    file, index = folder / f"{stem}.rgb", folder / f"{stem}.json"
    if index.exists() and file.exists():
        places = {key: tuple(place) for key, place in json.loads(index.read_text()).items()}
        return PixelStore(file, places)
    places = {}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (
            whole_file(file, shared=True) as partial,
            partial.open("wb") as out,
            ThreadPoolExecutor() as pool,
        ):
            for first in range(0, len(wanted), _AT_ONCE):
                some = wanted[first : first + _AT_ONCE]
                for key, pixels in zip(some, pool.map(load, some), strict=True):
                    places[key] = (out.tell(), *pixels.shape[:2])
                    out.write(np.ascontiguousarray(pixels).data)
        with whole_file(index, shared=True) as partial:
            partial.write_text(json.dumps(places))
    except OSError as error:
        raise TableError(f"{folder}: cannot keep decoded images there: {error}") from error
    size = file.stat().st_size
    log.info("%d decoded images kept in %s (%.1f GB)", len(wanted), file, size / 1e9)
    return PixelStore(file, places)
