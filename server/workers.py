"""Threads that carry one image each from bytes to verdict, behind a bounded queue."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from server.metrics import GateMetrics
from utility_gate.errors import OverloadedError

Result = TypeVar("Result")


class Workers:
    """`count` threads; at most `max_waiting` calls wait for one.

    A call whose caller gave up before a thread took it is dropped without being computed.
    Knows neither gRPC nor images. Use from one event loop.
    """

    def __init__(self, count: int, max_waiting: int, metrics: GateMetrics) -> None:
        self._capacity = count + max_waiting
        self._accepted = 0
        self._in_line: deque[asyncio.Future[None]] = deque()
        self._metrics = metrics
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="worker")

    async def run(self, work: Callable[[], Result], *, patient: bool = False) -> Result:
        """The result of `work`, computed in a worker thread.

        A patient caller (a stream, which takes no further item meanwhile) stands in line when
        too many calls wait already; any other is refused at once.

        Raises:
            OverloadedError: if too many calls wait already and the caller is not patient.
        """
        while self._accepted >= self._capacity:
            if not patient:
                self._metrics.shed.inc()
                raise OverloadedError(
                    f"expected at most {self._capacity} images at a time; try again later"
                )
            await self._stand_in_line()
        future = self._pool.submit(work)
        # The place is given back when the thread is done with it, not when the caller leaves:
        # a cancelled call that already runs still occupies its worker.
        self._accepted += 1
        self._metrics.in_flight.set(self._accepted)
        loop = asyncio.get_running_loop()
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(self._release))
        return await asyncio.wrap_future(future)

    async def _stand_in_line(self) -> None:
        called: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._in_line.append(called)
        try:
            await called
        except asyncio.CancelledError:
            if called.done() and not called.cancelled():
                self._call_next()  # we were called and leave: the place is another's
            raise

    def _release(self) -> None:
        self._accepted -= 1
        self._metrics.in_flight.set(self._accepted)
        self._call_next()

    def _call_next(self) -> None:
        while self._in_line:
            called = self._in_line.popleft()
            if not called.done():
                called.set_result(None)
                return

    def close(self) -> None:
        """Drop what waits, let what runs finish, end the threads."""
        self._pool.shutdown(wait=True, cancel_futures=True)
