"""Whether an address is worth a call, judged by how the last ones ended. Knows no gRPC."""

from __future__ import annotations

import enum
import random
import time
from collections import deque
from collections.abc import Callable

from server.routes.settings import BreakerSettings

_JITTER = 0.2
"""Share by which ejections differ, so that gates do not come back together."""

_MOST_REMEMBERED = 10_000
"""Calls of the window; more would tell nothing more of their share."""


class State(enum.IntEnum):
    """The numbers are the metric's."""

    CLOSED = 0  # calls go there
    HALF_OPEN = 1  # one call is tried
    OPEN = 2  # none


class Breaker:
    """Of one address. A call is begun (`begin`), and ended by exactly one of `succeed`, `fail` and
    `forget`. Use from one thread."""

    def __init__(
        self,
        settings: BreakerSettings,
        clock: Callable[[], float] = time.monotonic,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        """`clock` is in seconds and never goes back; `uniform` draws between its arguments."""
        self._settings, self._clock, self._uniform = settings, clock, uniform
        self._outcomes: deque[tuple[float, bool]] = deque(maxlen=_MOST_REMEMBERED)
        self._failed = 0  # of these outcomes
        self._in_a_row = 0
        self._ejections = 0  # that followed closely
        self._opened = False
        self._until = 0.0
        self._trials = 0  # ever begun: the last one's number
        self._trial = 0  # the number of the one under way, 0 without one
        self._tried = 0.0  # when it began

    @property
    def state(self) -> State:
        """What it is now; an ejection ends by itself."""
        if not self._opened:
            return State.CLOSED
        return State.OPEN if self._clock() < self._until else State.HALF_OPEN

    @property
    def allows(self) -> bool:
        """Whether a call may begin now. A trial that has not ended after the seconds of an ejection
        tells nothing, a stream whose caller is silent say: another is tried."""
        state = self.state
        if state is not State.HALF_OPEN:
            return state is State.CLOSED
        return not self._trial or self._clock() - self._tried >= self._settings.ejection

    @property
    def opens_in(self) -> float:
        """Seconds until an ejection is over; 0 without one."""
        return max(0.0, self._until - self._clock()) if self._opened else 0.0

    def begin(self) -> int:
        """Begin a call that is allowed; not 0 if it is the one that is tried."""
        if self.state is not State.HALF_OPEN:
            return 0
        self._trials += 1
        self._trial, self._tried = self._trials, self._clock()
        return self._trial

    def succeed(self, *, trial: int) -> None:
        """A call ended well; `trial` is what `begin` said of it."""
        if self._opened:
            if not self._is_tried(trial):  # begun before the ejection: tells nothing of now
                return
            self._close()
        self._in_a_row = 0
        self._remember(failed=False)

    def fail(self, *, trial: int) -> bool:
        """A call failed; True if this ejects the address."""
        if self._opened:
            if tried := self._is_tried(trial):
                self._open()
            return tried
        self._in_a_row += 1
        self._remember(failed=True)
        calls = len(self._outcomes)
        too_many = calls >= self._settings.least_calls and (
            self._failed >= self._settings.failure_rate * calls
        )
        if self._in_a_row < self._settings.consecutive and not too_many:
            return False
        self._open()
        return True

    def forget(self, *, trial: int) -> None:
        """A call ended and tells nothing: its caller gave up, say."""
        if self._is_tried(trial):
            self._trial = 0

    def _is_tried(self, trial: int) -> bool:
        """Whether a call is the trial under way, and no other has taken its place."""
        return trial != 0 and trial == self._trial

    def _open(self) -> None:
        now = self._clock()
        # Calm for as long as the last ejection could have grown to: it is another trouble.
        if now - self._until > self._settings.longest_ejection:
            self._ejections = 0
        seconds = min(
            self._settings.longest_ejection,
            self._settings.ejection * 2.0 ** min(self._ejections, 60),
        )
        self._ejections += 1
        self._until = now + seconds * self._uniform(1 - _JITTER, 1 + _JITTER)
        self._opened, self._trial = True, 0

    def _close(self) -> None:
        self._opened, self._trial = False, 0
        self._outcomes.clear()
        self._failed = 0

    def _remember(self, *, failed: bool) -> None:
        now = self._clock()
        if len(self._outcomes) == self._outcomes.maxlen:
            self._drop_first()
        self._outcomes.append((now, failed))
        self._failed += failed
        while self._outcomes[0][0] < now - self._settings.window:
            self._drop_first()

    def _drop_first(self) -> None:
        self._failed -= self._outcomes.popleft()[1]
