"""New predictors without a restart: load, prove, swap between two requests, or keep the old."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from server.gate import Gate
from server.metrics import GateMetrics
from server.watched_files import sign
from utility_gate.errors import UtilityGateError

log = logging.getLogger(__name__)


class Reloader:
    """Makes gates by `load` (in a thread; it may take its time) and hands them to `swap`."""

    def __init__(
        self,
        load: Callable[[], Gate],
        swap: Callable[[Gate], None],
        metrics: GateMetrics,
        files: list[Path],
    ) -> None:
        """Made before the first `load`, so that no change of `files` is missed after it."""
        self._load, self._swap, self._metrics, self._files = load, swap, metrics, files
        self._loaded = sign(files)
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

    async def watch(self, seconds: float) -> None:
        """Reload whenever one of the files has changed and then stayed the same for `seconds`."""
        seen = self._loaded
        while True:
            await asyncio.sleep(seconds)
            now = sign(self._files)
            if now == seen and now != self._loaded:
                self._loaded = now
                await self.reload()
            seen = now
