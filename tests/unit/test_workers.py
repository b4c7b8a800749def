"""Admission: bounds, turns, deadlines; without gRPC or images."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from server.metrics import GateMetrics
from serving.fairness import FairQueue
from serving.workers import Workers
from utility_gate.errors import NotReadyError, OverloadedError, TooLateError


class Busy:
    """One worker that is held until `release` is set; everything else must wait."""

    def __init__(self, max_waiting: int = 10, ahead: int = 0) -> None:
        self.metrics = GateMetrics()
        self.workers = Workers(1, max_waiting, self.metrics, ahead)
        self.release = threading.Event()
        self.order: list[str] = []

    async def __aenter__(self) -> Busy:
        self.first = asyncio.ensure_future(self.workers.run(lambda: self.release.wait(10)))
        await asyncio.sleep(0.02)
        return self

    def ask(self, client: str, name: str = "", **options: object) -> asyncio.Future[None]:
        """A call that notes its name when it is computed."""
        work = self.workers.run(
            lambda: self.order.append(name or client),
            client=client,
            **options,  # type: ignore[arg-type]
        )
        return asyncio.ensure_future(work)

    async def __aexit__(self, *_: object) -> None:
        self.release.set()
        await self.first
        self.workers.close()

    def metric(self, name: str) -> float:
        return self.metrics.registry.get_sample_value(f"utility_gate_{name}") or 0.0


async def test_clients_take_turns() -> None:
    async with Busy() as busy:
        greedy = [busy.ask("greedy", f"g{n}") for n in range(5)]
        await asyncio.sleep(0)
        modest = [busy.ask("modest", f"m{n}") for n in range(2)]
        await asyncio.sleep(0.02)
        busy.release.set()
        await asyncio.gather(*greedy, *modest)
    assert busy.order == ["g0", "m0", "g1", "m1", "g2", "g3", "g4"]


async def test_a_greedy_client_is_sent_away_for_a_modest_one() -> None:
    async with Busy(max_waiting=3) as busy:
        greedy = [busy.ask("greedy", f"g{n}") for n in range(3)]
        await asyncio.sleep(0.02)
        modest = busy.ask("modest")
        with pytest.raises(OverloadedError):
            await greedy[2]
        with pytest.raises(OverloadedError):
            await busy.ask("greedy")  # the line is full and it has most of it
        busy.release.set()
        await asyncio.gather(greedy[0], greedy[1], modest)
    assert busy.order == ["g0", "modest", "g1"]
    assert busy.metric("shed_total") == 2


async def test_one_who_leaves_while_being_sent_away_harms_nobody() -> None:
    async with Busy(max_waiting=3) as busy:
        greedy = [busy.ask("greedy", f"g{n}") for n in range(3)]
        await asyncio.sleep(0.02)
        greedy[2].cancel()  # still in line: its task has not heard of it
        modest = busy.ask("modest")
        await asyncio.wait({greedy[2]})
        busy.release.set()
        await asyncio.gather(greedy[0], greedy[1], modest)
    assert busy.order == ["g0", "modest", "g1"]


async def test_equals_do_not_send_each_other_away() -> None:
    async with Busy(max_waiting=2) as busy:
        one, two = busy.ask("one"), busy.ask("two")
        await asyncio.sleep(0.02)
        for client in ("one", "two", "three"):
            with pytest.raises(OverloadedError):
                await busy.ask(client)
        busy.release.set()
        await asyncio.gather(one, two)


async def test_a_stream_is_never_sent_away_but_waits_its_turn() -> None:
    async with Busy(max_waiting=1) as busy:
        stream = [busy.ask("stream", f"s{n}", patient=True) for n in range(6)]
        await asyncio.sleep(0.02)
        unary = busy.ask("unary")
        await asyncio.sleep(0.02)
        busy.release.set()
        await asyncio.gather(*stream, unary)
    assert busy.order[:2] == ["s0", "unary"]
    assert len(busy.order) == 7


async def test_a_deadline_that_cannot_be_met_is_refused_before_work() -> None:
    async with Busy() as busy:
        busy.release.set()
        await busy.first
        for _ in range(3):
            await busy.workers.run(lambda: time.sleep(0.1))
        busy.release.clear()
        busy.first = asyncio.ensure_future(busy.workers.run(lambda: busy.release.wait(10)))
        await asyncio.sleep(0.02)
        started = time.perf_counter()
        with pytest.raises(TooLateError, match=r"which an image takes now, got 0\.010 s"):
            await busy.ask("a", seconds=0.01)
        assert time.perf_counter() - started < 0.05
        patient = busy.ask("a", seconds=30.0)
        await asyncio.sleep(0.02)
        busy.release.set()
        await patient
    assert busy.order == ["a"]
    assert busy.metric("too_late_total") == 1


async def test_an_idle_gate_refuses_no_deadline() -> None:
    workers = Workers(1, 1, GateMetrics())
    await workers.run(lambda: time.sleep(0.2))
    assert await workers.run(lambda: "quick after all", seconds=0.05) == "quick after all"
    workers.close()


async def test_who_expires_in_line_is_not_computed() -> None:
    async with Busy() as busy:
        late = busy.ask("late", seconds=0.05)
        in_time = busy.ask("in time", seconds=30.0)
        await asyncio.sleep(0.1)
        busy.release.set()
        with pytest.raises(TooLateError, match="passed while waiting"):
            await late
        await in_time
    assert busy.order == ["in time"]


async def test_who_was_turned_away_and_leaves_in_the_same_moment_frees_no_slot() -> None:
    """Its task is cancelled before it hears that its deadline has passed in line."""
    async with Busy() as busy:
        late = busy.ask("late", seconds=0.05)
        await asyncio.sleep(0.1)
        called = busy.workers._call_next

        def call_and_cancel() -> None:
            called()
            late.cancel()

        busy.workers._call_next = call_and_cancel  # type: ignore[method-assign]
        busy.release.set()
        await busy.first
        await asyncio.wait({late})
        busy.workers._call_next = called  # type: ignore[method-assign]
        await asyncio.sleep(0.02)
        assert busy.metric("requests_in_flight") == 0
        assert busy.workers.idle


async def test_retry_after_grows_with_the_line() -> None:
    async with Busy(max_waiting=0) as busy:
        with pytest.raises(OverloadedError) as short:
            await busy.ask("a")
    async with Busy(max_waiting=50) as busy:
        busy.release.set()
        await busy.first
        await busy.workers.run(lambda: time.sleep(0.1))
        busy.release.clear()
        busy.first = asyncio.ensure_future(busy.workers.run(lambda: busy.release.wait(10)))
        line = [busy.ask("a") for _ in range(50)]
        await asyncio.sleep(0.05)
        with pytest.raises(OverloadedError) as long:
            await busy.ask("a")
        busy.release.set()
        await asyncio.gather(*line)
    assert 0 < short.value.retry_after < long.value.retry_after <= 5.0


async def test_thousands_of_cancelled_calls_leave_nothing_behind() -> None:
    async with Busy(max_waiting=100_000) as busy:
        for round_ in range(10):
            calls = [busy.ask(f"client {n % 7}", f"{round_}") for n in range(500)]
            await asyncio.sleep(0)
            for number, call in enumerate(calls):
                if number % 50:
                    call.cancel()
            await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        assert busy.metric("images_waiting") == 100
        busy.release.set()
        await asyncio.sleep(0.3)
        assert len(busy.order) == 100
        assert busy.metric("images_in_flight") == 0
        assert await asyncio.wait_for(busy.workers.run(lambda: 5), 1) == 5


async def test_closed_workers_say_so() -> None:
    workers = Workers(1, 1, GateMetrics())
    workers.close()
    with pytest.raises(NotReadyError, match="shutting down"):
        await workers.run(lambda: None)


async def test_who_lies_ready_is_bounded_and_dropped_like_the_others() -> None:
    async with Busy(max_waiting=2, ahead=1) as busy:
        line = [busy.ask("a", f"a{n}") for n in range(2)]
        await asyncio.sleep(0.02)
        assert busy.metric("images_waiting") == 2
        with pytest.raises(OverloadedError):
            await busy.ask("a")
        line[0].cancel()  # it lay ready; the next one takes its slot
        await asyncio.sleep(0.02)
        last = busy.ask("a", "a3")
        await asyncio.sleep(0.02)
        busy.release.set()
        await asyncio.gather(line[1], last)
    assert busy.order == ["a1", "a3"]


def test_the_queue_by_hand() -> None:
    queue: FairQueue[int] = FairQueue()
    for client, items in (("a", [1, 2, 3]), ("b", [4])):
        for item in items:
            queue.push(client, item)
    assert queue.ahead("c") == 2  # one of a, one of b
    assert queue.ahead("b") == 3  # 1 of its own, and two of a
    assert queue.longest(lambda item: item != 3) == ("a", 2)
    assert queue.last("a", lambda item: item != 3) == 2
    assert queue.remove("a", 2)
    assert not queue.remove("a", 2)
    assert [queue.pop() for _ in range(len(queue))] == [1, 4, 3]
    with pytest.raises(LookupError):
        queue.pop()
