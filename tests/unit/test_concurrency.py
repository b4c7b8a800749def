"""Workers and streams, without gRPC or images."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator

import pytest

from server.metrics import GateMetrics
from serving.workers import Workers
from utility_gate.errors import OverloadedError
from utility_gate.streams import map_unordered


async def numbers(count: int, taken: list[int] | None = None) -> AsyncIterator[int]:
    for number in range(count):
        if taken is not None:
            taken.append(number)
        yield number


async def test_work_runs_in_other_threads_and_its_errors_come_back() -> None:
    workers = Workers(2, 2, GateMetrics())
    assert await workers.run(threading.get_ident) != threading.get_ident()
    with pytest.raises(ZeroDivisionError):
        await workers.run(lambda: 1 / 0)
    workers.close()


async def test_what_does_not_fit_is_refused_at_once() -> None:
    metrics = GateMetrics()
    workers = Workers(1, 2, metrics)
    release = threading.Event()
    accepted = [asyncio.ensure_future(workers.run(lambda: release.wait(10))) for _ in range(3)]
    await asyncio.sleep(0.05)
    started = time.perf_counter()
    with pytest.raises(OverloadedError, match="at most 2"):
        await workers.run(lambda: None)
    assert time.perf_counter() - started < 0.5
    release.set()
    assert await asyncio.gather(*accepted) == [True] * 3
    assert await workers.run(lambda: "room again") == "room again"
    assert metrics.registry.get_sample_value("utility_gate_shed_total") == 1
    workers.close()


async def test_patient_callers_stand_in_line_and_are_all_served() -> None:
    metrics = GateMetrics()
    workers = Workers(1, 0, metrics)
    calls = [workers.run(lambda n=n: time.sleep(0.01) or n, patient=True) for n in range(20)]
    assert await asyncio.wait_for(asyncio.gather(*calls), 10) == list(range(20))
    assert metrics.registry.get_sample_value("utility_gate_shed_total") == 0
    workers.close()


async def test_whoever_leaves_the_line_gives_the_place_to_the_next() -> None:
    workers = Workers(1, 0, GateMetrics())
    release = threading.Event()
    running = asyncio.ensure_future(workers.run(lambda: release.wait(10)))
    await asyncio.sleep(0.02)
    line = [asyncio.ensure_future(workers.run(lambda n=n: n, patient=True)) for n in range(3)]
    await asyncio.sleep(0.02)
    line[0].cancel()
    release.set()
    await running
    line[1].cancel()  # may have been called already: the last one must not wait forever
    assert await asyncio.wait_for(line[2], 5) == 2
    workers.close()


async def test_a_cancelled_call_is_never_computed_and_harms_no_neighbour() -> None:
    workers = Workers(1, 10, GateMetrics())
    release, computed = threading.Event(), []
    first = asyncio.ensure_future(workers.run(lambda: release.wait(10)))
    await asyncio.sleep(0.05)
    waiting = [asyncio.ensure_future(workers.run(lambda n=n: computed.append(n))) for n in range(4)]
    await asyncio.sleep(0.05)
    waiting[1].cancel()
    waiting[2].cancel()
    await asyncio.sleep(0.05)
    release.set()
    await first
    await asyncio.gather(waiting[0], waiting[3])
    assert computed == [0, 3]
    await asyncio.sleep(0.05)
    assert workers._running == 0
    workers.close()


async def test_a_call_cancelled_while_it_runs_keeps_its_place_until_the_thread_is_free() -> None:
    workers = Workers(1, 0, GateMetrics())
    release = threading.Event()
    running = asyncio.ensure_future(workers.run(lambda: release.wait(10)))
    await asyncio.sleep(0.05)
    running.cancel()
    await asyncio.sleep(0.05)
    with pytest.raises(OverloadedError):
        await workers.run(lambda: None)
    release.set()
    await asyncio.sleep(0.1)
    assert await workers.run(lambda: 5) == 5
    workers.close()


async def test_a_stream_is_mapped_with_bounded_concurrency() -> None:
    running, most = 0, 0

    async def work(number: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001 * (number % 3))
        running -= 1
        return number * 10

    answers = [answer async for answer in map_unordered(numbers(50), work, 4)]
    assert sorted(answers) == [number * 10 for number in range(50)]
    assert most == 4


async def test_a_slow_reader_slows_the_sender() -> None:
    taken: list[int] = []

    async def work(number: int) -> int:
        return number

    answers = map_unordered(numbers(1000, taken), work, 3)
    await anext(answers)
    await asyncio.sleep(0.05)
    assert len(taken) <= 6
    await answers.aclose()


async def test_an_error_ends_the_stream_and_cancels_the_rest() -> None:
    cancelled = asyncio.Event()

    async def work(number: int) -> int:
        if number == 1:
            raise ValueError("bad item")
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return number

    with pytest.raises(ValueError, match="bad item"):
        async for _ in map_unordered(numbers(2), work, 2):
            pass
    await asyncio.wait_for(cancelled.wait(), 5)


async def test_a_stopped_stream_answers_what_it_took_and_takes_no_more() -> None:
    stop = asyncio.Event()

    async def endless() -> AsyncIterator[int]:
        number = 0
        while True:
            yield number
            number += 1
            await asyncio.sleep(0.005)

    async def work(number: int) -> int:
        await asyncio.sleep(0.05)
        return number

    answers = []
    async for answer in map_unordered(endless(), work, 4, stop):
        answers.append(answer)
        if len(answers) == 3:
            stop.set()
    assert sorted(answers) == list(range(len(answers)))
    assert 3 < len(answers) < 12


async def test_a_sender_that_waits_does_not_hold_up_a_stop() -> None:
    stop = asyncio.Event()

    async def silent() -> AsyncIterator[int]:
        yield 1
        await asyncio.sleep(60)

    async def work(number: int) -> int:
        return number

    async def collect() -> list[int]:
        return [answer async for answer in map_unordered(silent(), work, 4, stop)]

    collecting = asyncio.ensure_future(collect())
    await asyncio.sleep(0.05)
    stop.set()
    assert await asyncio.wait_for(collecting, 5) == [1]


async def test_an_empty_stream_is_empty() -> None:
    async def work(number: int) -> int:
        return number

    assert [answer async for answer in map_unordered(numbers(0), work, 2)] == []
