"""grpc.health.v1 whose watchers do not hold up the shutdown."""

from __future__ import annotations

import asyncio
from typing import Any

from grpc_health.v1 import health, health_pb2

NAME: str = health.SERVICE_NAME
_STATUS = health_pb2.HealthCheckResponse


class HealthServicer(health.aio.HealthServicer):  # type: ignore[misc]
    """NOT_SERVING from birth; one status for the server ("") and its `services`."""

    def __init__(self, *services: str) -> None:
        super().__init__()
        self._services = services
        self._ended = asyncio.Event()

    async def report(self, *, serving: bool) -> None:
        """Tell those who ask and those who watch."""
        for name in ("", *self._services):
            await self.set(name, _STATUS.SERVING if serving else _STATUS.NOT_SERVING)

    async def Watch(self, request: Any, context: Any) -> None:  # noqa: N802 - named by the contract
        """Send each change of status until the watcher leaves or `end_watches`."""
        watching = asyncio.ensure_future(super().Watch(request, context))
        ended = asyncio.ensure_future(self._ended.wait())
        try:
            await asyncio.wait({watching, ended}, return_when=asyncio.FIRST_COMPLETED)
            if watching.done():
                watching.result()
        finally:
            watching.cancel()
            ended.cancel()

    def end_watches(self) -> None:
        """End all watches, which otherwise last as long as their watchers like."""
        self._ended.set()
