"""What a call does when the gate is in trouble: fail, or let the image through."""

from __future__ import annotations

import logging
import threading
import time
from typing import Literal, get_args

from utility_gate.client.values import StreamAnswer
from utility_gate.errors import (
    ConfigError,
    GateCancelledError,
    GateDeniedError,
    GateError,
    GateTimeoutError,
    UtilityGateError,
)
from utility_gate.types import Decision, Mode, Verdict

log = logging.getLogger(__name__)

OnFailure = Literal["closed", "open"]
"""closed: raise. open: let the image through, unjudged."""

WARN_SECONDS = 60.0
"""At most one warning per kind of error in this time."""


class Fallback:
    """Turns gate trouble into verdicts of mode FALLBACK, if it is `open`. Thread-safe.

    Trouble is any GateError but denied credentials, which somebody has to mend, and cancelled
    calls, whose caller waits for nothing.
    """

    def __init__(self, on_failure: OnFailure) -> None:
        """Raises ConfigError if `on_failure` is neither "closed" nor "open"."""
        if on_failure not in get_args(OnFailure):
            raise ConfigError(f'expected on_failure "closed" or "open", got {on_failure!r}')
        self._open = on_failure == "open"
        self._lock = threading.Lock()
        self._warned: dict[type[UtilityGateError], float] = {}
        self.count = 0

    def instead(self, error: UtilityGateError, task: str, *, hurried: bool = False) -> Verdict:
        """A verdict in place of `error`; raises it if it must not be passed over. A `hurried` call
        had less time than the client gives the gate: that it was too short is nobody's trouble."""
        late = hurried and isinstance(error, GateTimeoutError)
        if not self._open or late or not is_trouble(error):
            raise error
        with self._lock:
            self.count += 1
            count, now = self.count, time.monotonic()
            due = now >= self._warned.get(type(error), now - WARN_SECONDS) + WARN_SECONDS
            if due:
                self._warned[type(error)] = now
        if due:
            log.warning("image let through unjudged, number %d of this client: %s", count, error)
        return Verdict(
            task=task,
            utility=None,
            decision=Decision.USEFUL,
            thresholds=None,
            reasons=(),
            predictor=None,
            image=None,
            mode=Mode.FALLBACK,
            note=str(error),
        )

    def answer(self, answer: StreamAnswer, task: str) -> StreamAnswer:
        """The same for one of many: an error that must not be passed over stays the answer."""
        number, verdict = answer
        if isinstance(verdict, UtilityGateError):
            try:
                return number, self.instead(verdict, task)
            except UtilityGateError as error:
                return number, error
        return answer


def is_trouble(error: Exception) -> bool:
    """Whether `error` is the gate's own failure, not the caller's."""
    return isinstance(error, GateError) and not isinstance(
        error, GateDeniedError | GateCancelledError
    )
