"""What gRPC's Python layer logs by itself, tamed: it repeats what callers sent, keys among it."""

from __future__ import annotations

import logging
import time

LOGGER = "grpc._cython.cygrpc"

_EVERY_SECONDS = 1.0


class _Tame(logging.Filter):
    """Lets one line a second through, with nothing in it that a caller chose."""

    def __init__(self) -> None:
        super().__init__()
        self._latest = float("-inf")

    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrite the record, or drop it."""
        now = time.monotonic()
        if now - self._latest < _EVERY_SECONDS:
            return False
        self._latest = now
        kind = record.exc_info[0].__name__ if record.exc_info and record.exc_info[0] else "a call"
        record.msg, record.args = "gRPC could not serve %s; callers' data are left out", (kind,)
        record.exc_info = record.exc_text = record.stack_info = None
        return True


def tame() -> None:
    """Put the filter in place, once."""
    logger = logging.getLogger(LOGGER)
    if not any(isinstance(one, _Tame) for one in logger.filters):
        logger.addFilter(_Tame())
