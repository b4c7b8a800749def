"""What serves now: nothing while the service starts, something else after a reload."""

from __future__ import annotations

import asyncio
from typing import Generic, TypeVar

from utility_gate.errors import NotReadyError

Value = TypeVar("Value")

_LEAVE_SECONDS = 0.3
"""After so long a client that tries again finds our connection closed, and another server."""


class Current(Generic[Value]):
    """Holds `value`, which is None until the first one is loaded. `closing` is set when the
    service ends: streams take no further image then, and new calls are refused."""

    def __init__(self, noun: str) -> None:
        """`noun` is what callers are told this is."""
        self._noun = noun
        self.value: Value | None = None
        self.closing = asyncio.Event()

    def ready(self) -> Value:
        """What serves now, for a call that begins now.

        Raises:
            NotReadyError: if the service is starting, or takes no new call because it ends.
        """
        if self.closing.is_set():
            raise NotReadyError(
                f"the {self._noun} is shutting down; ask another one", _LEAVE_SECONDS
            )
        return self.get()

    def get(self) -> Value:
        """What serves now, for a call that is under way.

        Raises:
            NotReadyError: if the service is starting.
        """
        if self.value is None:
            raise NotReadyError(f"the {self._noun} is starting; try again in a moment")
        return self.value
