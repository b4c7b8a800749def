"""What is read from files and read again when they change."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from utility_gate.errors import ConfigError

log = logging.getLogger(__name__)

Value = TypeVar("Value")

CHECK_SECONDS = 1.0
"""The files are looked at no more often than this, so that asking costs next to nothing."""

Signature = tuple[tuple[int, int, int] | None, ...]


class Reloading(Generic[Value]):
    """The value of `load()`, renewed when one of `files` changes. Thread-safe.

    Files that cannot be used any more leave the value as it was; this is logged once for each
    state of the files, and tried again at each look.
    """

    def __init__(
        self,
        load: Callable[[], Value],
        files: Sequence[Path],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`clock` is in seconds.

        Raises:
            ConfigError: what `load` raises the first time.
        """
        self._load, self._files, self._clock = load, tuple(files), clock
        self._lock = threading.Lock()
        self._looked_at = clock()
        self._complained: Signature | None = None
        self._signature = sign(self._files)  # before the value: a change meanwhile is seen later
        self._value = load()

    def get(self) -> Value:
        """The newest value that could be loaded; at most CHECK_SECONDS behind the files."""
        with self._lock:
            if self._clock() - self._looked_at >= CHECK_SECONDS:
                self._looked_at = self._clock()
                self._look()
            return self._value

    def _look(self) -> None:
        signature = sign(self._files)
        if signature == self._signature:
            return
        names = ", ".join(str(file) for file in self._files)
        try:
            self._value = self._load()
        except ConfigError as error:
            if signature != self._complained:
                log.warning("%s changed and cannot be used, the old state stays: %s", names, error)
            self._complained = signature
            return
        self._signature, self._complained = signature, None
        log.info("read again: %s", names)


def sign(files: Sequence[Path]) -> Signature:
    """What changes when a file, or a link on the way to it, is exchanged; None for each file that
    is not there."""
    return tuple(_sign(file) for file in files)


def _sign(file: Path) -> tuple[int, int, int] | None:
    try:
        state = file.stat()  # follows links: mounted secrets are exchanged by changing a link
    except OSError:
        return None
    return state.st_mtime_ns, state.st_size, state.st_ino
