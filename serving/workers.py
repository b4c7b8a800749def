"""Threads that carry one image each from bytes to answer, behind a bounded, fair queue."""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from serving.fairness import FairQueue
from serving.metrics import ServiceMetrics
from utility_gate.errors import NotReadyError, OverloadedError, TooLateError

Result = TypeVar("Result")

_SMOOTHING = 0.05
"""Weight of the newest service time in their moving average: about the last forty calls."""

_LEAST_RETRY, _MOST_RETRY = 0.1, 5.0
"""Seconds that callers who are turned away are told to wait, however short or long the line."""


@dataclass(eq=False, slots=True)
class _Ticket:
    """One call that waits for a thread; `patient` ones do not count towards the bound."""

    client: str
    patient: bool
    latest: float
    called: asyncio.Future[None] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    @property
    def has_slot(self) -> bool:
        """Whether it was called and not turned away."""
        called = self.called
        return called.done() and not called.cancelled() and called.exception() is None


class Workers:
    """`count` threads; at most `max_waiting` calls wait for one, every client in turn.

    A call whose caller gave up, or whose deadline passed, before a thread took it is dropped
    without being computed. Knows neither gRPC nor images. Use from one event loop.
    """

    def __init__(
        self,
        count: int,
        max_waiting: int,
        metrics: ServiceMetrics,
        ahead: int | None = None,
        noun: str = "service",
    ) -> None:
        """`ahead` of the calls that wait have their turn behind them and lie ready for the next
        free thread, which would otherwise idle until the event loop has called somebody; by
        default one for each thread. `noun` is what callers are told this is."""
        self._count, self._max_waiting = count, max_waiting
        ahead = min(count if ahead is None else ahead, max_waiting)
        self._slots, self._bound = count + ahead, max_waiting - ahead
        self._running = 0
        self._bounded = 0
        self._queue: FairQueue[_Ticket] = FairQueue()
        self._service_seconds: float | None = None
        self._metrics, self._noun = metrics, noun
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="worker")

    async def run(
        self,
        work: Callable[[], Result],
        *,
        client: str = "",
        seconds: float | None = None,
        patient: bool = False,
    ) -> Result:
        """The result of `work`, computed in a worker thread.

        `client` is who asks: calls of different clients take turns. `seconds` is what is left of
        the caller's deadline. A patient caller (a stream, which takes no further item meanwhile)
        stands in line when too many calls wait already. Any other is refused at once, unless
        a client with more calls in line than this one can be sent away instead.

        Raises:
            OverloadedError: if too many calls wait already and the caller is not patient.
            TooLateError: if the deadline cannot be met, before anything is computed.
            NotReadyError: if the workers are closed.
        """
        latest = float("inf") if seconds is None else time.monotonic() + seconds
        if self._running < self._slots:
            self._running += 1
        else:
            await self._wait(client, latest, seconds, patient=patient)
        # From here on a slot is ours, and is given back when its thread is done, not when the
        # caller leaves: a cancelled call that already runs still occupies its worker.
        self._report()
        loop = asyncio.get_running_loop()
        timed = _Timed(work)
        try:
            future = self._pool.submit(contextvars.copy_context().run, timed)
        except RuntimeError as error:  # the pool is closed
            self._running -= 1
            raise NotReadyError(f"the {self._noun} is shutting down; ask another one") from error
        future.add_done_callback(lambda _: _tell(loop, self._release, timed))
        return await asyncio.wrap_future(future)

    @property
    def idle(self) -> bool:
        """Whether nothing is computed and nobody waits."""
        return not self._running and not len(self._queue)

    def close(self) -> None:
        """Drop what waits, let what runs finish, end the threads."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    async def _wait(
        self, client: str, latest: float, seconds: float | None, *, patient: bool
    ) -> None:
        """Stand in line; returns with a slot of our own."""
        expected = self._expected_seconds(client)
        if seconds is not None and expected is not None and expected > seconds:
            self._metrics.too_late.inc()
            raise TooLateError(
                f"expected a deadline of at least {expected:.3f} s, which an image takes now, got "
                f"{seconds:.3f} s"
            )
        if not patient and self._bounded >= self._bound:
            self._make_room(client)
        ticket = _Ticket(client, patient, latest)
        self._queue.push(client, ticket)
        self._bounded += not patient
        self._report()
        entered = time.monotonic()
        try:
            await ticket.called
        except asyncio.CancelledError:
            if ticket.has_slot:
                self._running -= 1  # we were called and leave: the slot is another's
                self._call_next()
            else:
                self._leave(ticket)
            raise
        finally:
            self._metrics.queue_seconds.observe(time.monotonic() - entered)

    def _make_room(self, client: str) -> None:
        """Send away the newest call of whoever has most in line, if that is not this client."""
        greedy, most = self._queue.longest(_counts)
        own = self._queue.count(client, _counts)
        self._metrics.shed.inc()
        if most <= own + 1:
            raise self._overloaded()
        ticket = self._queue.last(greedy, _counts)
        self._leave(ticket)
        if not ticket.called.done():  # its caller may just have given up
            ticket.called.set_exception(self._overloaded())

    def _overloaded(self) -> OverloadedError:
        each = self._service_seconds or _LEAST_RETRY
        drained = each * len(self._queue) / self._count
        return OverloadedError(
            f"expected at most {self._max_waiting} images in line; try again later",
            retry_after=min(max(drained, _LEAST_RETRY), _MOST_RETRY),
        )

    def _expected_seconds(self, client: str) -> float | None:
        """How long a call that came now would take, from what the last ones took."""
        if self._service_seconds is None:
            return None
        before = self._slots - self._count + self._queue.ahead(client)
        return self._service_seconds * (1 + before / self._count)

    def _leave(self, ticket: _Ticket) -> None:
        if self._queue.remove(ticket.client, ticket):
            self._bounded -= not ticket.patient
            self._report()

    def _release(self, timed: _Timed[Any]) -> None:
        took, before = timed.seconds, self._service_seconds
        if took is not None:  # else it was dropped before a thread took it
            change = 0.0 if before is None else _SMOOTHING * (took - before)
            self._service_seconds = took if before is None else before + change
        self._running -= 1
        self._call_next()
        self._report()

    def _call_next(self) -> None:
        while len(self._queue):
            ticket = self._queue.pop()
            self._bounded -= not ticket.patient
            if ticket.called.done():
                continue
            if ticket.latest <= time.monotonic():
                self._metrics.too_late.inc()
                ticket.called.set_exception(TooLateError("the deadline passed while waiting"))
                continue
            self._running += 1
            ticket.called.set_result(None)
            return

    def _report(self) -> None:
        accepted = self._running + len(self._queue)
        self._metrics.in_flight.set(accepted)
        self._metrics.waiting.set(max(0, accepted - self._count))


class _Timed(Generic[Result]):
    """Work that knows how long it took; `seconds` is None until it has."""

    def __init__(self, work: Callable[[], Result]) -> None:
        self._work = work
        self.seconds: float | None = None

    def __call__(self) -> Result:
        started = time.monotonic()
        try:
            return self._work()
        finally:
            self.seconds = time.monotonic() - started


def _counts(ticket: _Ticket) -> bool:
    return not ticket.patient


def _tell(loop: asyncio.AbstractEventLoop, call: Callable[..., Any], *arguments: Any) -> None:
    """Call back on the loop; a loop that has ended needs no telling."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(call, *arguments)
