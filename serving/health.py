"""grpc.health.v1, of our own: no watcher, however slow, holds up another, a start or an end.

grpcio's own servicer writes to its watchers while it holds the lock that a change of status needs.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

NAME: str = health.SERVICE_NAME
_STATUS = health_pb2.HealthCheckResponse

_LONGEST_NAME = 200
"""Of a service that is asked for; whoever asks needs no key."""


class HealthServicer(health_pb2_grpc.HealthServicer):  # type: ignore[misc]
    """NOT_SERVING from birth; one status for the server ("") and its `services`, less those that
    are said to be down."""

    def __init__(self, *services: str) -> None:
        self._names = frozenset(("", *services))
        self._status = _STATUS.NOT_SERVING
        self._down: set[str] = set()
        self._leaving = False
        self._ended = False
        self._changed = asyncio.Event()

    def report(self, *, serving: bool) -> None:
        """Tell those who ask and those who watch; once it leaves nobody is told otherwise."""
        if not self._leaving:
            self._set(_STATUS.SERVING if serving else _STATUS.NOT_SERVING)

    def report_service(self, name: str, *, serving: bool) -> None:
        """One of the services: it serves only while the server does."""
        before = len(self._down)
        (self._down.discard if serving else self._down.add)(name)
        if len(self._down) != before:
            self._set(self._status)

    def leave(self) -> None:
        """NOT_SERVING, for good."""
        self.report(serving=False)
        self._leaving = True

    def end_watches(self) -> None:
        """End all watches, which otherwise last as long as their watchers like."""
        self._ended = True
        self._set(self._status)

    async def Check(self, request: Any, context: Any) -> Any:  # noqa: N802 - named by the contract
        """The status now."""
        await self._check_name(request, context)
        if request.service not in self._names:
            await context.abort(grpc.StatusCode.NOT_FOUND, "expected a service of this server")
        return _STATUS(status=self._status_of(request.service))

    async def Watch(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        """The status now and at each change, until the watcher leaves or `end_watches`."""
        await self._check_name(request, context)
        known = request.service in self._names
        told = None
        while not self._ended:
            # Taken before the status is sent: a change meanwhile is seen right after.
            changed = self._changed
            status = self._status_of(request.service) if known else _STATUS.SERVICE_UNKNOWN
            if status != told:
                told = status
                yield _STATUS(status=status)
            await changed.wait()

    async def _check_name(self, request: Any, context: Any) -> None:
        if len(request.service) > _LONGEST_NAME:
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"expected the name of a service, got {len(request.service)} characters",
            )

    def _status_of(self, name: str) -> int:
        return int(_STATUS.NOT_SERVING) if name in self._down else self._status

    def _set(self, status: int) -> None:
        self._status = status
        self._changed.set()  # wakes all who wait, and nobody who comes later
        self._changed = asyncio.Event()
