"""One log line for an RPC that ended, and not more of a kind than anyone reads."""

from __future__ import annotations

import asyncio
import contextvars
import logging

import grpc

log = logging.getLogger(__name__)

LINES_PER_SECOND = 5
"""Lines of one method and code that are written in a second; the rest are counted."""

_QUIET = frozenset(
    {
        grpc.StatusCode.OK,
        grpc.StatusCode.INVALID_ARGUMENT,  # the caller's own affair, and as frequent as he likes
        grpc.StatusCode.FAILED_PRECONDITION,  # so are images that are stopped
        grpc.StatusCode.INTERNAL,  # logged already, with its incident
    }
)


class AccessLog:
    """DEBUG for what is quiet, INFO for other errors. Use from one event loop."""

    def __init__(self, lines_per_second: int = LINES_PER_SECOND) -> None:
        self._most = lines_per_second
        self._windows: dict[tuple[str, grpc.StatusCode], _Window] = {}

    def record(self, method: str, code: grpc.StatusCode, seconds: float, message: str = "") -> None:
        """Write or count one RPC that ended."""
        level = logging.DEBUG if code in _QUIET else logging.INFO
        if not log.isEnabledFor(level):
            return
        if level == logging.INFO and not self._has_room(method, code):
            return
        told = f": {message}" if message else ""
        fields = {"code": code.name, "seconds": round(seconds, 6)}
        log.log(level, "%s %s%s", method, code.name, told, extra=fields)

    def close(self) -> None:
        """Tell what was counted and not told yet."""
        for method, code in self._windows:
            self._end(method, code)

    def _has_room(self, method: str, code: grpc.StatusCode) -> bool:
        loop = asyncio.get_running_loop()
        window = self._windows.get((method, code))
        if window is None or (not window.left_out and loop.time() - window.began >= 1):
            window = self._windows[method, code] = _Window(loop.time())
        if window.written < self._most:
            window.written += 1
            return True
        if not window.left_out:
            # In a context of its own: the summary is no request's line.
            delay = window.began + 1 - loop.time()
            nobody = contextvars.Context()
            loop.call_later(delay, self._end, method, code, context=nobody)
        window.left_out += 1
        return False

    def _end(self, method: str, code: grpc.StatusCode) -> None:
        window = self._windows[method, code]
        if window.left_out:
            log.info("%s %s: … and %d more", method, code.name, window.left_out)
        self._windows[method, code] = _Window(asyncio.get_running_loop().time())


class _Window:
    """One second of one method and code."""

    __slots__ = ("began", "left_out", "written")

    def __init__(self, began: float) -> None:
        self.began = began
        self.written = 0
        self.left_out = 0
