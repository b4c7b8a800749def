"""New networks without a restart: load, prove, swap between two requests, or keep the old."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from serving.metrics import ServiceMetrics
from serving.watched_files import sign
from utility_gate.errors import UtilityGateError

log = logging.getLogger(__name__)

Loaded = TypeVar("Loaded")


class Reloader(Generic[Loaded]):
    """Hands what `load` makes (in a thread; it may take its time) to `swap`."""

    def __init__(
        self,
        load: Callable[[], Loaded],
        swap: Callable[[Loaded], None],
        metrics: ServiceMetrics,
        files: Sequence[Path],
    ) -> None:
        """Made before the first `load`, so that no change of `files` is missed after it."""
        self._load, self._swap, self._metrics, self._files = load, swap, metrics, files
        self._loaded = sign(files)
        self._one_at_a_time = asyncio.Lock()

    async def reload(self) -> bool:
        """Load again and swap; False if it could not be loaded and the old state goes on."""
        async with self._one_at_a_time:
            try:
                loaded = await asyncio.to_thread(self._load)
            except UtilityGateError as error:
                self._metrics.reloads.labels("failed").inc()
                log.error("not reloaded, the old state goes on: %s", error)
                return False
            except Exception:
                self._metrics.reloads.labels("failed").inc()
                log.exception("not reloaded, the old state goes on")
                return False
            self._swap(loaded)
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
