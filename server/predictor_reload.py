"""New predictors without a restart: load, prove, swap between two requests, or keep the old."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from server.gate import Gate
from server.metrics import GateMetrics
from utility_gate.errors import UtilityGateError

log = logging.getLogger(__name__)

Fingerprint = tuple[tuple[int, int], ...]


class Reloader:
    """Makes gates by `load` (in a thread; it may take its time) and hands them to `swap`."""

    def __init__(
        self, load: Callable[[], Gate], swap: Callable[[Gate], None], metrics: GateMetrics
    ) -> None:
        self._load, self._swap, self._metrics = load, swap, metrics
        self._one_at_a_time = asyncio.Lock()

    async def reload(self) -> bool:
        """Swap in a new gate; False if it could not be loaded and the old one goes on."""
        async with self._one_at_a_time:
            try:
                gate = await asyncio.to_thread(self._load)
            except UtilityGateError as error:
                self._metrics.reloads.labels("failed").inc()
                log.error("not reloaded, the old predictors go on: %s", error)
                return False
            except Exception:
                self._metrics.reloads.labels("failed").inc()
                log.exception("not reloaded, the old predictors go on")
                return False
            self._swap(gate)
            self._metrics.reloads.labels("done").inc()
            log.info("reloaded")
            return True

    async def watch(self, files: list[Path], seconds: float) -> None:
        """Reload whenever one of `files` has changed and then stayed the same for `seconds`."""
        loaded = seen = fingerprint(files)
        while True:
            await asyncio.sleep(seconds)
            now = fingerprint(files)
            if now == seen and now != loaded:
                loaded = now
                await self.reload()
            seen = now


def fingerprint(files: list[Path]) -> Fingerprint:
    """What changes when a file is written: size and time of each, zeros for one that is missing."""

    def look(file: Path) -> tuple[int, int]:
        try:
            state = file.stat()
        except OSError:
            return (0, 0)
        return (state.st_size, state.st_mtime_ns)

    return tuple(look(file) for file in files)
