"""Threads that carry one image each from bytes to verdict, behind a bounded queue."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from server.metrics import GateMetrics
from utility_gate.errors import OverloadedError

Result = TypeVar("Result")


class Workers:
    """`count` threads; at most `max_waiting` calls wait for one, a further one is refused.

    A call whose caller gave up before a thread took it is dropped without being computed.
    Knows neither gRPC nor images. Use from one event loop.
    """

    def __init__(self, count: int, max_waiting: int, metrics: GateMetrics) -> None:
        self._capacity = count + max_waiting
        self._accepted = 0
        self._metrics = metrics
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="worker")

    async def run(self, work: Callable[[], Result]) -> Result:
        """The result of `work`, computed in a worker thread.

        Raises:
            OverloadedError: at once, if too many calls wait already.
        """
        if self._accepted >= self._capacity:
            self._metrics.shed.inc()
            raise OverloadedError(
                f"expected at most {self._capacity} images at a time; try again later"
            )
        future = self._pool.submit(work)
        # The place is given back when the thread is done with it, not when the caller leaves:
        # a cancelled call that already runs still occupies its worker.
        self._accepted += 1
        self._metrics.in_flight.set(self._accepted)
        loop = asyncio.get_running_loop()
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(self._release))
        return await asyncio.wrap_future(future)

    def _release(self) -> None:
        self._accepted -= 1
        self._metrics.in_flight.set(self._accepted)

    def close(self) -> None:
        """Drop what waits, let what runs finish, end the threads."""
        self._pool.shutdown(wait=True, cancel_futures=True)
