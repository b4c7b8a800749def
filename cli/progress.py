"""Progress of a long job on standard error: done, total, rate, time left."""

from __future__ import annotations

import sys
import time
from types import TracebackType


class Progress:
    """Call with (done, total); prints at most once a second, in place on a terminal."""

    def __init__(self, unit: str) -> None:
        self._unit = unit
        self._started = self._printed = time.monotonic()
        self._before = self._last = -1

    def __call__(self, done: int, total: int) -> None:
        """Report progress."""
        now = time.monotonic()
        if self._before < 0 or done < self._last:
            # What was done before (or in the round before) says nothing about the speed of now.
            self._before, self._started = done, now
        self._last = done
        interval = 1.0 if sys.stderr.isatty() else 30.0
        if now - self._printed < interval and done < total:
            return
        self._printed = now
        rate = (done - self._before) / max(now - self._started, 1e-9)
        left = (total - done) / rate if rate else 0.0
        end = "\r" if sys.stderr.isatty() and done < total else "\n"
        print(
            f"{done}/{total} {self._unit}, {rate:.1f}/s, {left / 60:.0f} min left   ",
            end=end,
            file=sys.stderr,
            flush=True,
        )

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if kind is not None and sys.stderr.isatty():
            print(file=sys.stderr)
