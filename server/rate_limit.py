"""How many images each key may send: a token bucket per key."""

from __future__ import annotations

import time
from collections.abc import Callable

from server.keys import Key
from server.metrics import GateMetrics
from utility_gate.errors import RateLimitedError


class TokenBucket:
    """`burst` tokens at first and at most, `rate` new ones a second. Knows no clock."""

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate, self._burst = rate, burst
        self._tokens, self._filled_at = burst, now

    def take(self, now: float) -> float:
        """Take one token and return 0; or take none and return the seconds until there is one."""
        gained = max(0.0, now - self._filled_at) * self._rate
        self._tokens = min(self._burst, self._tokens + gained)
        self._filled_at = now
        if self._tokens < 1:
            return (1 - self._tokens) / self._rate
        self._tokens -= 1
        return 0.0


class RateLimiter:
    """One bucket per key. Use from one event loop."""

    def __init__(self, metrics: GateMetrics, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` is in seconds and never goes back."""
        self._metrics, self._clock = metrics, clock
        self._buckets: dict[str, tuple[Key, TokenBucket]] = {}

    def spend(self, key: Key) -> None:
        """Account for one image.

        Raises:
            RateLimitedError: if the key's bucket is empty; nothing is accounted for then.
        """
        if key.rate is None:
            return
        now = self._clock()
        known, bucket = self._buckets.get(key.name, (None, None))
        if bucket is None or known != key:  # new, or its limits were changed
            bucket = TokenBucket(key.rate, key.burst, now)
            self._buckets[key.name] = (key, bucket)
        seconds = bucket.take(now)
        if seconds > 0:
            self._metrics.rate_limited.labels(key.name).inc()
            raise RateLimitedError(
                f"expected at most {key.rate:g} images a second (and {key.burst:g} at once) from "
                f"{key.name}, got more; the next one is taken in {seconds:.3f} s",
                retry_after=seconds,
            )
