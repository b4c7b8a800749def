"""How many images each key may send: a token bucket per key."""

from __future__ import annotations

import time
from collections.abc import Callable

from serving.keys import Key
from serving.metrics import ServiceMetrics
from utility_gate.errors import RateLimitedError


class TokenBucket:
    """`burst` tokens at first and at most, `rate` new ones a second. Knows no clock."""

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate, self._burst = rate, burst
        self._tokens, self._filled_at = burst, now

    def take(self, now: float) -> float:
        """Take one token and return 0; or take none and return the seconds until there is one."""
        self._fill(now)
        if self._tokens < 1:
            return (1 - self._tokens) / self._rate
        self._tokens -= 1
        return 0.0

    def charge(self, now: float, tokens: int) -> None:
        """Take so many tokens, there or not; those that are not are owed."""
        self._fill(now)
        self._tokens -= tokens

    def _fill(self, now: float) -> None:
        gained = max(0.0, now - self._filled_at) * self._rate
        self._tokens = min(self._burst, self._tokens + gained)
        self._filled_at = now


class RateLimiter:
    """One bucket per key. Use from one event loop."""

    def __init__(
        self, metrics: ServiceMetrics, clock: Callable[[], float] = time.monotonic
    ) -> None:
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
        seconds = self._bucket(key, key.rate, now).take(now)
        if seconds > 0:
            self._metrics.rate_limited.labels(key.name).inc()
            raise RateLimitedError(
                f"expected at most {key.rate:g} images a second (and {key.burst:g} at once) from "
                f"{key.name}, got more; the next one is taken in {seconds:.3f} s",
                retry_after=seconds,
            )

    def charge(self, key: Key, images: int) -> None:
        """Account for images that were judged already, whatever the limit."""
        if key.rate is not None:
            now = self._clock()
            self._bucket(key, key.rate, now).charge(now, images)

    def _bucket(self, key: Key, rate: float, now: float) -> TokenBucket:
        known, bucket = self._buckets.get(key.name, (None, None))
        if bucket is None or known != key:  # new, or its limits were changed
            bucket = TokenBucket(rate, key.burst, now)
            self._buckets[key.name] = (key, bucket)
        return bucket
