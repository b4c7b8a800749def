"""Clients against real gates, and against gates that misbehave by a script."""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import pytest

from serving import app
from serving.errors import to_status
from tests.conftest import RunningGate, encode
from tests.gates import ScriptedGate, serving
from utility_gate.client import AsyncGateClient, GateClient, options
from utility_gate.client.fallback import Fallback
from utility_gate.errors import (
    ConfigError,
    GateCancelledError,
    GateDeniedError,
    GateError,
    GateProtocolError,
    GateTimeoutError,
    GateUnavailableError,
    NotAnImageError,
    OverloadedError,
)
from utility_gate.types import Decision, Mode, Verdict

OK = grpc.StatusCode.OK
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
RESOURCE_EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED
INTERNAL = grpc.StatusCode.INTERNAL

NOBODY = "127.0.0.1:1"


def plain(level: int) -> bytes:
    return encode(np.full((64, 64, 3), level, np.uint8), "PNG")


def threads() -> set[threading.Thread]:
    """All but those of servers' pools."""
    return {one for one in threading.enumerate() if "ThreadPoolExecutor" not in one.name}


class TestRetries:
    @pytest.mark.parametrize("code", [UNAVAILABLE, RESOURCE_EXHAUSTED])
    def test_a_call_that_was_turned_away_is_repeated(self, code: grpc.StatusCode) -> None:
        with serving(ScriptedGate([code, code, OK])) as gate, GateClient(gate.target) as client:
            assert client.assess(b"image").decision is Decision.USEFUL
        assert gate.attempts == 3

    @pytest.mark.parametrize(
        "code",
        [
            INTERNAL,
            grpc.StatusCode.UNKNOWN,
            grpc.StatusCode.ABORTED,
            grpc.StatusCode.DEADLINE_EXCEEDED,
            grpc.StatusCode.UNAUTHENTICATED,
        ],
    )
    def test_any_other_failure_is_not(self, code: grpc.StatusCode) -> None:
        with (
            serving(ScriptedGate([code, OK])) as gate,
            GateClient(gate.target) as client,
            pytest.raises(GateError),
        ):
            client.assess(b"image")
        assert gate.attempts == 1

    def test_it_ends_after_four_attempts(self) -> None:
        with (
            serving(ScriptedGate([UNAVAILABLE])) as gate,
            GateClient(gate.target) as client,
            pytest.raises(GateUnavailableError, match="as written"),
        ):
            client.assess(b"image")
        assert gate.attempts == 4

    def test_the_gate_s_own_pause_is_kept(self) -> None:
        script = ScriptedGate([RESOURCE_EXHAUSTED, OK], pushback="700")
        with serving(script) as gate, GateClient(gate.target) as client:
            client.assess(b"image")
        first, second = gate.times
        assert 0.65 < second - first < 2

    def test_a_gate_that_wants_no_repetition_gets_none(self) -> None:
        with (
            serving(ScriptedGate([UNAVAILABLE, OK], pushback="-1")) as gate,
            GateClient(gate.target) as client,
            pytest.raises(GateUnavailableError),
        ):
            client.assess(b"image")
        assert gate.attempts == 1

    @pytest.mark.parametrize("seconds", [0.0, 0.15])
    def test_the_timeout_covers_all_attempts(self, seconds: float) -> None:
        script = ScriptedGate([UNAVAILABLE], pushback="300", seconds=seconds)
        with serving(script) as gate, GateClient(gate.target, timeout=0.5) as client:
            started = time.monotonic()
            with pytest.raises(GateTimeoutError):
                client.assess(b"image")
            assert time.monotonic() - started < 1
            assert gate.attempts == 2

    def test_while_all_calls_fail_the_budget_ends_the_repetitions(self) -> None:
        with serving(ScriptedGate([UNAVAILABLE], pushback="1")) as gate:
            with GateClient(gate.target) as client:
                for _ in range(30):
                    with pytest.raises(GateUnavailableError):
                        client.assess(b"image")
            assert gate.attempts < 60  # of 120

    async def test_asyncio_does_the_same(self) -> None:
        with serving(ScriptedGate([UNAVAILABLE, RESOURCE_EXHAUSTED, OK])) as gate:
            async with AsyncGateClient(gate.target) as client:
                assert (await client.assess(b"image")).decision is Decision.USEFUL
        assert gate.attempts == 3

    def test_a_pause_is_spread_and_never_long(self) -> None:
        def pause(seconds: float) -> int:
            trailers = to_status(OverloadedError("busy", retry_after=seconds)).to_trailers()
            return int(dict(trailers)["grpc-retry-pushback-ms"])

        pauses = [pause(0.5) for _ in range(50)]
        assert 400 <= min(pauses) < max(pauses) <= 600
        assert pause(30) == -1

    def test_a_real_gate_under_load_says_when_to_come_back(
        self, start_gate: Callable[..., RunningGate], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        gate = start_gate(workers=1, max_waiting=0)
        inner = gate.server.current.value
        judge = inner.assess

        def slow(*arguments: Any, **options: Any) -> Any:
            time.sleep(0.1)
            return judge(*arguments, **options)

        monkeypatch.setattr(inner, "assess", slow)
        with GateClient(gate.target) as client:
            answers = dict(client.assess_many((str(n), plain(200)) for n in range(2)))
        assert {answer.decision for answer in answers.values()} == {Decision.USEFUL}
        assert gate.metric("utility_gate_shed_total") >= 1


class TestChannels:
    def test_one_client_serves_many_threads(self, client: GateClient) -> None:
        levels = [20, 128, 200] * 20
        with ThreadPoolExecutor(12) as pool:
            verdicts = list(pool.map(lambda level: client.assess(plain(level)), levels))
        expected = {20: Decision.NON_USEFUL, 128: Decision.REVIEW, 200: Decision.USEFUL}
        assert [verdict.decision for verdict in verdicts] == [expected[level] for level in levels]

    def test_clients_of_one_target_share_a_connection(self) -> None:
        with serving(ScriptedGate()) as gate:
            clients = [GateClient(gate.target) for _ in range(5)]
            for client in clients:
                client.assess(b"image")
            for client in clients:
                client.close()
        assert len(gate.peers) == 1

    def test_a_waiting_stream_may_be_pinged(
        self, start_gate: Callable[..., RunningGate], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As often as the gate says; a gate that did not say it would hang up at the third ping."""
        assert dict(options.OPTIONS)["grpc.keepalive_time_ms"] > app._PING_MILLISECONDS
        monkeypatch.setattr(app, "_PING_MILLISECONDS", 50)
        faster = dict(options.OPTIONS) | {"grpc.keepalive_time_ms": 1000}
        monkeypatch.setattr("utility_gate.client.base.OPTIONS", tuple(faster.items()))

        def images() -> Iterator[tuple[str, bytes]]:
            yield "1", plain(200)
            time.sleep(4.5)  # gRPC pings once a second at most
            yield "2", plain(200)

        with GateClient(start_gate().target) as client:
            assert set(dict(client.assess_stream(images(), timeout=10))) == {"1", "2"}


class TestFallback:
    @pytest.mark.parametrize(
        ("code", "told"),
        [
            (INTERNAL, "failed with INTERNAL"),
            (UNAVAILABLE, "not available"),
            (grpc.StatusCode.UNIMPLEMENTED, "no utility gate"),
        ],
    )
    def test_open_lets_images_through_and_says_so(
        self, code: grpc.StatusCode, told: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        with (
            caplog.at_level(logging.WARNING, "utility_gate"),
            serving(ScriptedGate([code])) as gate,
            GateClient(gate.target, on_failure="open", task="faces") as client,
        ):
            verdicts = [client.assess(b"image") for _ in range(3)]
            assert client.fallbacks == 3
        for verdict in verdicts:
            assert (verdict.mode, verdict.decision) == (Mode.FALLBACK, Decision.USEFUL)
            assert (verdict.utility, verdict.image, verdict.judgement) == (None, None, None)
            assert verdict.task == "faces"
            assert told in verdict.note
        warnings = [record for record in caplog.records if record.levelname == "WARNING"]
        assert len(warnings) == 1
        assert told in warnings[0].getMessage()

    def test_each_kind_of_trouble_is_told_once_a_minute(
        self, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        clock = itertools.count(0, 25)
        monkeypatch.setattr("utility_gate.client.fallback.time.monotonic", lambda: next(clock))
        fallback = Fallback("open")
        for _ in range(4):  # at 0, 50, 100, 150 and 25, 75, 125, 175 seconds
            fallback.instead(GateTimeoutError("late"), "")
            fallback.instead(GateUnavailableError("away"), "")
        told = [record.getMessage().split(": ")[1] for record in caplog.records]
        assert told == ["late", "away", "late", "away"]
        assert fallback.count == 8

    def test_a_late_and_an_absent_gate_count_as_trouble(self) -> None:
        with (
            serving(ScriptedGate(seconds=0.5)) as gate,
            GateClient(gate.target, on_failure="open") as client,
        ):
            assert client.assess(b"image", timeout=0.1).mode is Mode.FALLBACK
        with GateClient(NOBODY, on_failure="open") as client:
            assert client.assess(b"image").mode is Mode.FALLBACK
            with pytest.raises(GateUnavailableError):
                client.info()

    def test_the_caller_s_own_faults_are_never_passed_over(self, gate: RunningGate) -> None:
        with GateClient(gate.target, on_failure="open") as client:
            with pytest.raises(NotAnImageError):
                client.assess(b"junk")
            assert isinstance(dict(client.assess_many([("1", b"junk")]))["1"], NotAnImageError)
            assert client.fallbacks == 0
        for code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
            with (
                serving(ScriptedGate([code])) as script,
                GateClient(script.target, on_failure="open") as client,
                pytest.raises(GateDeniedError),
            ):
                client.assess(b"image")

    def test_a_closed_client_s_calls_are_cancelled_not_passed_over(self) -> None:
        with serving(ScriptedGate(seconds=0.5)) as gate, ThreadPoolExecutor(1) as pool:
            client = GateClient(gate.target, on_failure="open")
            call = pool.submit(client.assess, b"image")
            while not gate.attempts:
                time.sleep(0.01)
            client.close()
            with pytest.raises(GateCancelledError):
                call.result(5)

    def test_closed_raises(self) -> None:
        with serving(ScriptedGate([INTERNAL])) as gate, GateClient(gate.target) as client:
            with pytest.raises(GateError, match="INTERNAL"):
                client.assess(b"image")
            assert client.fallbacks == 0

    def test_an_answer_that_cannot_be_used_is_trouble_too(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with serving(ScriptedGate()) as gate:
            monkeypatch.setattr("tests.gates.wire.from_verdict", lambda _: None)
            with GateClient(gate.target) as client, pytest.raises(GateProtocolError):
                client.assess(b"image")
            with GateClient(gate.target, on_failure="open") as client:
                assert client.assess(b"image").mode is Mode.FALLBACK

    def test_in_a_stream_images_pass_but_a_broken_stream_raises(
        self, gate: RunningGate, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken(*_: Any, **__: Any) -> None:
            raise RuntimeError("broken")

        monkeypatch.setattr(gate.server.current.value, "assess", broken)
        with GateClient(gate.target, on_failure="open") as client:
            answers = dict(client.assess_stream([("1", plain(9)), ("2", plain(9))], timeout=10))
            assert {answer.mode for answer in answers.values()} == {Mode.FALLBACK}
        with GateClient(NOBODY, on_failure="open") as client, pytest.raises(GateUnavailableError):
            list(client.assess_stream([("1", plain(9))], timeout=5))

    async def test_asyncio_does_the_same(self) -> None:
        with serving(ScriptedGate([INTERNAL])) as gate:
            async with AsyncGateClient(gate.target, on_failure="open") as client:
                assert (await client.assess(b"image")).mode is Mode.FALLBACK
                answers = [answer async for _, answer in client.assess_many([("1", b"image")])]
                assert [answer.mode for answer in answers] == [Mode.FALLBACK]
                assert client.fallbacks == 2
            async with AsyncGateClient(gate.target) as client:
                with pytest.raises(GateError):
                    await client.assess(b"image")

    def test_another_word_is_refused(self) -> None:
        with pytest.raises(ConfigError, match='"closed" or "open"'):
            GateClient(NOBODY, on_failure="ajar")  # type: ignore[arg-type]


class TestMany:
    def test_every_image_is_answered_with_its_verdict_or_error(self, client: GateClient) -> None:
        kinds = {"bright": plain(220), "bad": b"junk", "dark": plain(10)}
        sent = [(f"{kind}-{n}", image) for n in range(10) for kind, image in kinds.items()]
        answers = dict(client.assess_many(iter(sent), concurrency=3))
        assert set(answers) == {name for name, _ in sent}
        for name, answer in answers.items():
            if name.startswith("bad"):
                assert isinstance(answer, NotAnImageError)
            else:
                assert isinstance(answer, Verdict)
                assert (answer.decision is Decision.USEFUL) == name.startswith("bright")

    def test_images_are_taken_as_there_is_room(self) -> None:
        taken = answered = most = 0

        def images() -> Iterator[tuple[str, bytes]]:
            nonlocal taken, most
            for number in range(30):
                taken += 1
                most = max(most, taken - answered)
                yield str(number), b"image"

        with serving(ScriptedGate(seconds=0.01)) as gate, GateClient(gate.target) as client:
            for _ in client.assess_many(images(), concurrency=4):
                answered += 1
        assert answered == 30
        assert 2 <= most <= 4

    def test_answers_come_as_they_are_ready(self) -> None:
        """A source that is slow, even endless, does not hold back what is ready."""
        go_on = threading.Event()

        def images() -> Iterator[tuple[str, bytes]]:
            yield "1", b"image"
            time.sleep(0.3)
            yield "2", b"image"
            assert go_on.wait(10)

        with serving(ScriptedGate()) as gate, GateClient(gate.target) as client:
            answers = client.assess_many(images())
            assert next(answers)[0] == "1"
            go_on.set()
            assert [number for number, _ in answers] == ["2"]

    def test_leaving_early_cancels_and_leaves_no_thread(self) -> None:
        taken = 0

        def images() -> Iterator[tuple[str, bytes]]:
            nonlocal taken
            while True:
                taken += 1
                yield str(taken), b"image"

        with serving(ScriptedGate(seconds=0.1)) as gate, GateClient(gate.target) as client:
            before = threads()
            answers = client.assess_many(images(), concurrency=5)
            next(answers)
            assert len(threads() - before) <= 1  # gRPC's, for all calls of the channel
            answers.close()  # type: ignore[attr-defined]
            at_close = taken
            assert at_close <= 6
            deadline = time.monotonic() + 5
            while threads() - before and time.monotonic() < deadline:
                time.sleep(0.02)
            assert not threads() - before
            assert taken == at_close

    def test_what_the_source_raises_is_raised(self, client: GateClient) -> None:
        def images() -> Iterator[tuple[str, bytes]]:
            yield "1", plain(200)
            raise OSError("disk on fire")

        with pytest.raises(OSError, match="disk on fire"):
            list(client.assess_many(images()))

    def test_a_concurrency_below_one_is_refused_at_once(self) -> None:
        with GateClient(NOBODY) as client, pytest.raises(ConfigError, match="at least 1, got 0"):
            client.assess_many([], concurrency=0)

    async def test_asyncio_does_the_same(self, gate: RunningGate) -> None:
        taken = 0

        async def images() -> AsyncIterator[tuple[str, bytes]]:
            nonlocal taken
            while True:
                taken += 1
                yield str(taken), plain(200)

        async with AsyncGateClient(gate.target) as client:
            sent = [("bright", plain(200)), ("bad", b"junk")]
            answers = dict([pair async for pair in client.assess_many(sent, concurrency=1)])
            assert answers["bright"].decision is Decision.USEFUL
            assert isinstance(answers["bad"], NotAnImageError)
            many = client.assess_many(images(), concurrency=3)
            await anext(many)
            await many.aclose()  # type: ignore[attr-defined]
            at_close = taken
            await asyncio.sleep(0.1)
            assert taken == at_close <= 5
            with pytest.raises(ConfigError):
                client.assess_many([], concurrency=0)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        assert not [task for task in others if "judge" in repr(task)]
