"""How a streamed call ended, as the other end said it.

When the other end ends a call while a message is being written, grpc.aio puts an error of its own
in place of the status that was sent.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any, TypeVar

import grpc

Value = TypeVar("Value")

_OVERWRITTEN = (grpc.StatusCode.INTERNAL, "Internal error from Core")
_WAIT_SECONDS = 0.5
"""The status may come after the error in its place; if it does not, that is what there is."""


class StatusWatch:
    """Remembers the first status that is no such error.

    Holds neither call nor error: in a cycle they would hold the channel open until the next garbage
    collection.
    """

    def __init__(self, call: Any) -> None:
        """`call` is one of grpc.aio that has just begun."""
        self._status: tuple[Any, ...] = ()
        self._known = asyncio.Event()
        call.add_done_callback(self._note)

    async def get(self) -> grpc.aio.AioRpcError:
        """The status of the call, which has ended; its code may be OK."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._known.wait(), _WAIT_SECONDS)
        if not self._status:
            raise RuntimeError("expected a call that has ended")
        return grpc.aio.AioRpcError(*self._status)

    def _note(self, call: Any) -> None:
        if self._known.is_set():
            return
        code, details = _now(call.code()), _now(call.details())
        metadata = _now(call.initial_metadata()), _now(call.trailing_metadata())
        self._status = (code, *metadata, details)
        if (code, details) != _OVERWRITTEN:
            self._known.set()


def _now(coroutine: Coroutine[Any, Any, Value]) -> Value:
    """The result of a coroutine that has nothing to wait for."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: Value = stop.value
        return result
    raise RuntimeError("expected a call that has ended")
