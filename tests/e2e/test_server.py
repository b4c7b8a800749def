"""A real server, real clients, loopback."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from server.app import SERVICE
from tests.conftest import ColdGate, RunningGate, encode
from utility_gate.client import AsyncGateClient, GateClient
from utility_gate.errors import (
    ConfigError,
    CorruptImageError,
    GateProtocolError,
    GateTimeoutError,
    GateUnavailableError,
    ImageTooLargeError,
    NotAnImageError,
    UnknownTaskError,
)
from utility_gate.types import AdviceKind, Decision, ReasonKind
from utility_gate.v1 import gate_pb2 as pb
from utility_gate.v1 import gate_pb2_grpc as pb_grpc


def plain(level: int) -> bytes:
    return encode(np.full((128, 128, 3), level, np.uint8), "PNG")


def test_the_verdict_says_what_was_judged_and_why(client: GateClient) -> None:
    dark = client.assess(plain(20))
    assert dark.decision is Decision.NON_USEFUL
    assert dark.task == "general"
    assert dark.thresholds.useful == 0.6
    assert (dark.predictor.name, dark.predictor.version) == ("brightness", "7")
    assert len(dark.predictor.digest) == 64
    assert (dark.image.format, dark.image.width, dark.image.height) == ("PNG", 128, 128)
    kinds = [reason.kind for reason in dark.reasons]
    assert kinds[0] is ReasonKind.LOW_UTILITY
    assert ReasonKind.TOO_DARK in kinds
    assert {one.kind: one.value for one in dark.advice}[AdviceKind.BRIGHTER] == 25.0
    middling, bright = client.assess(plain(128)), client.assess(plain(200))
    assert middling.decision is Decision.REVIEW
    assert middling.advice
    assert bright.decision is Decision.USEFUL
    assert bright.reasons
    assert bright.advice == ()


def test_info_names_tasks_thresholds_and_limits(client: GateClient) -> None:
    info = client.info()
    assert [task.name for task in info.tasks] == ["general"]
    assert info.tasks[0].thresholds.review == 0.4
    assert info.max_image_bytes == 20 * 1024 * 1024
    assert info.formats == ("JPEG", "PNG", "WEBP")


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", NotAnImageError),
        (b"%PDF-1.7 not an image", NotAnImageError),
        (b"\xff\xd8\xff\xe0 broken", (NotAnImageError, CorruptImageError)),
    ],
)
def test_bytes_that_are_no_image_are_invalid(
    client: GateClient, data: bytes, error: type[Exception]
) -> None:
    with pytest.raises(error):
        client.assess(data)


def test_invalid_argument_carries_a_field_violation(gate: RunningGate) -> None:
    with grpc.insecure_channel(gate.target) as channel:
        stub = pb_grpc.UtilityGateServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.Assess(pb.AssessRequest(image=b"no image"), timeout=5)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    trailers = dict(caught.value.trailing_metadata())
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    detail = error_details_pb2.BadRequest()
    assert status.details[0].Unpack(detail)
    assert detail.field_violations[0].field == "image"
    assert detail.field_violations[0].reason == "NOT_AN_IMAGE"
    assert "JPEG, PNG or WebP" in detail.field_violations[0].description


def test_truncated_and_oversized_images_and_unknown_tasks_have_errors_of_their_own(
    start_gate: Callable[..., RunningGate], jpeg: bytes
) -> None:
    gate = start_gate(max_image_bytes=60_000, max_image_pixels=100_000)
    with GateClient(gate.target) as client:
        with pytest.raises(CorruptImageError, match="truncated"):
            client.assess(jpeg[: len(jpeg) // 2])
        with pytest.raises(ImageTooLargeError, match="60000 bytes"):
            client.assess(jpeg + bytes(60_000))
        with pytest.raises(ImageTooLargeError, match="100000 pixels"):
            client.assess(encode(np.zeros((400, 400, 3), np.uint8), "PNG"))
        with pytest.raises(UnknownTaskError, match="general"):
            client.assess(jpeg, task="moon")
    assert gate.metric("utility_gate_rejected_inputs_total", error="UnknownTaskError") == 1


def test_a_message_over_the_transport_limit_is_refused_not_retried_forever(
    start_gate: Callable[..., RunningGate],
) -> None:
    gate = start_gate(max_image_bytes=1000)
    with GateClient(gate.target) as client, pytest.raises(ImageTooLargeError):
        client.assess(bytes(6 * 1024 * 1024))


def test_a_stream_answers_every_id_and_survives_bad_images(client: GateClient) -> None:
    images = [("bright", plain(220)), ("bad", b"junk"), ("dark", plain(10))] * 20
    sent = [(f"{name}-{number}", data) for number, (name, data) in enumerate(images)]
    answers = dict(client.assess_stream(iter(sent), timeout=20))
    assert set(answers) == {name for name, _ in sent}
    for name, answer in answers.items():
        if name.startswith("bad"):
            assert isinstance(answer, NotAnImageError)
        else:
            expected = Decision.USEFUL if name.startswith("bright") else Decision.NON_USEFUL
            assert not isinstance(answer, Exception)
            assert answer.decision is expected


async def test_the_async_client_does_the_same(gate: RunningGate) -> None:
    async def images():  # type: ignore[no-untyped-def]
        for number in range(10):
            yield str(number), plain(200)

    async with AsyncGateClient(gate.target) as client:
        verdicts = await asyncio.gather(*(client.assess(plain(200)) for _ in range(10)))
        assert {verdict.decision for verdict in verdicts} == {Decision.USEFUL}
        assert [task.name for task in (await client.info()).tasks] == ["general"]
        names = {name async for name, _ in client.assess_stream(images(), timeout=10)}
        assert names == {str(number) for number in range(10)}
        with pytest.raises(NotAnImageError):
            await client.assess(b"junk")


def test_health_and_reflection(gate: RunningGate) -> None:
    with grpc.insecure_channel(gate.target) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for service in ("", SERVICE):
            answer = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=5)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
        ask = reflection_pb2.ServerReflectionRequest(list_services="")
        (listed,) = reflection.ServerReflectionInfo(iter([ask]), timeout=5)
        names = {service.name for service in listed.list_services_response.service}
        assert {SERVICE, "grpc.health.v1.Health"} <= names


def test_metrics_count_requests_verdicts_and_rejected_inputs(
    gate: RunningGate, client: GateClient
) -> None:
    client.assess(plain(200))
    with pytest.raises(NotAnImageError):
        client.assess(b"junk")
    page = urllib.request.urlopen(f"{gate.web}/metrics", timeout=5).read().decode()
    assert 'utility_gate_requests_total{code="OK",method="Assess"} 1.0' in page
    assert 'utility_gate_requests_total{code="INVALID_ARGUMENT",method="Assess"} 1.0' in page
    verdict = (
        'utility_gate_verdicts_total{decision="USEFUL",judgement="USEFUL",mode="ENFORCE",'
        'predictor_version="7",task="general"} 1.0'
    )
    assert verdict in page
    assert 'utility_gate_rejected_inputs_total{error="NotAnImageError"} 1.0' in page
    assert "utility_gate_ready 1.0" in page
    assert "utility_gate_images_in_flight 0.0" in page
    for path in ("healthz", "readyz"):
        assert urllib.request.urlopen(f"{gate.web}/{path}", timeout=5).status == 200
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"{gate.web}/nothing", timeout=5)


def test_overload_is_shed_at_once_and_named(
    start_gate: Callable[..., RunningGate], monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = start_gate(workers=1, max_waiting=0)
    assert gate.server.current.value is not None
    release, entered = threading.Event(), threading.Event()
    judge = gate.server.current.value.assess

    def slow(data: bytes, task: str, mode: object) -> object:
        entered.set()
        release.wait(20)
        return judge(data, task)

    monkeypatch.setattr(gate.server.current.value, "assess", slow)
    with grpc.insecure_channel(gate.target) as channel:
        stub = pb_grpc.UtilityGateServiceStub(channel)
        first = stub.Assess.future(pb.AssessRequest(image=plain(200)), timeout=30)
        assert entered.wait(10)
        with pytest.raises(grpc.RpcError) as caught:
            stub.Assess(pb.AssessRequest(image=plain(200)), timeout=5)
        release.set()
        assert first.result(10).verdict.decision == pb.DECISION_USEFUL
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    trailers = dict(caught.value.trailing_metadata())
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    assert status.details[0].Is(error_details_pb2.RetryInfo.DESCRIPTOR)
    assert gate.metric("utility_gate_shed_total") == 1


def test_an_unexpected_error_tells_the_caller_only_an_incident(
    gate: RunningGate, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(data: bytes, task: str, mode: object) -> None:
        raise RuntimeError("secret path /etc/gate")

    monkeypatch.setattr(gate.server.current.value, "assess", broken)
    with grpc.insecure_channel(gate.target) as channel:
        stub = pb_grpc.UtilityGateServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.Assess(pb.AssessRequest(image=b"x"), timeout=5)
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in caught.value.details()
    incident = caught.value.details().split("incident ")[1].split()[0]
    assert incident in caplog.text
    assert "secret path" in caplog.text


def test_a_deadline_and_an_absent_gate_have_errors_of_their_own(
    gate: RunningGate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate.server.current.value, "assess", lambda *_: time.sleep(0.5))
    with GateClient(gate.target, timeout=0.1) as client, pytest.raises(GateTimeoutError):
        client.assess(plain(200))
    with GateClient("127.0.0.1:1", timeout=2) as client, pytest.raises(GateUnavailableError):
        client.assess(plain(200))


def test_a_server_that_is_no_gate_is_named(gate: RunningGate) -> None:
    other = grpc.server(ThreadPoolExecutor(1))
    port = other.add_insecure_port("127.0.0.1:0")
    other.start()
    try:
        with GateClient(f"127.0.0.1:{port}") as client, pytest.raises(GateProtocolError):
            client.info()
    finally:
        other.stop(0).wait()


def test_draining_finishes_what_was_accepted_and_refuses_what_is_new(
    start_gate: Callable[..., RunningGate], monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = start_gate(drain_seconds=0.5)
    inner = gate.server.current.value
    assert inner is not None
    judge, entered = inner.assess, threading.Event()

    def slow(data: bytes, task: str, mode: object) -> object:
        entered.set()
        time.sleep(1.0)
        return judge(data, task)

    monkeypatch.setattr(inner, "assess", slow)
    with grpc.insecure_channel(gate.target) as channel:
        stub = pb_grpc.UtilityGateServiceStub(channel)
        health = health_pb2_grpc.HealthStub(channel)
        accepted = stub.Assess.future(pb.AssessRequest(image=plain(200)), timeout=10)
        assert entered.wait(5)
        stopping = asyncio.run_coroutine_threadsafe(gate.server.stop(), gate._loop)
        time.sleep(0.2)
        answer = health.Check(health_pb2.HealthCheckRequest(service=SERVICE), timeout=5)
        assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING
        with pytest.raises(urllib.error.HTTPError, match="503"):
            urllib.request.urlopen(f"{gate.web}/readyz", timeout=5)
        assert accepted.result(10).verdict.decision == pb.DECISION_USEFUL
        stopping.result(20)
        with pytest.raises(grpc.RpcError) as caught:
            stub.Assess(pb.AssessRequest(image=plain(200)), timeout=2)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    gate.stop = lambda: None  # type: ignore[method-assign]


def test_watching_health_does_not_hold_up_the_end(start_gate: Callable[..., RunningGate]) -> None:
    gate = start_gate(grace_seconds=20)
    with grpc.insecure_channel(gate.target) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        started = time.perf_counter()
        gate.call(gate.server.stop())
        assert time.perf_counter() - started < 5
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
    gate.stop = lambda: None  # type: ignore[method-assign]


def test_an_endless_stream_is_answered_and_told_when_the_gate_drains(
    start_gate: Callable[..., RunningGate],
) -> None:
    gate = start_gate(grace_seconds=20)
    sent = itertools.count()
    answered: list[object] = []

    def images():  # type: ignore[no-untyped-def]
        for number in sent:
            yield str(number), plain(200)
            time.sleep(0.01)

    with GateClient(gate.target) as client:
        answers = client.assess_stream(images())
        next(answers)
        stopping = asyncio.run_coroutine_threadsafe(gate.server.stop(), gate._loop)
        with pytest.raises(GateUnavailableError, match="shutting down"):
            answered.extend(answers)
        stopping.result(10)
    code = "CANCELLED"
    assert gate.metric("utility_gate_images_total", method="AssessStream", code=code) == 0
    judged = gate.metric("utility_gate_images_total", method="AssessStream", code="OK")
    assert judged == len(answered) + 1
    gate.stop = lambda: None  # type: ignore[method-assign]


def test_streams_are_never_shed_by_their_own_images(start_gate: Callable[..., RunningGate]) -> None:
    gate = start_gate(workers=2, max_waiting=0)
    with GateClient(gate.target) as client:
        sent = [(str(number), plain(200)) for number in range(60)]
        answers = dict(client.assess_stream(iter(sent), timeout=20))
    assert not [answer for answer in answers.values() if isinstance(answer, Exception)]
    assert len(answers) == 60


def test_what_a_stream_s_sender_raises_is_raised_to_its_reader(client: GateClient) -> None:
    def images():  # type: ignore[no-untyped-def]
        yield "1", plain(200)
        raise OSError("disk on fire")

    with pytest.raises(OSError, match="disk on fire"):
        list(client.assess_stream(images(), timeout=10))


async def test_async_streams_raise_their_sender_s_error_and_stop_sending_on_break(
    gate: RunningGate,
) -> None:
    sent = 0

    async def failing():  # type: ignore[no-untyped-def]
        yield "1", plain(200)
        raise OSError("disk on fire")

    async def endless():  # type: ignore[no-untyped-def]
        nonlocal sent
        while True:
            sent += 1
            yield str(sent), plain(200)

    async with AsyncGateClient(gate.target) as client:
        with pytest.raises(OSError, match="disk on fire"):
            async for _ in client.assess_stream(failing(), timeout=10):
                pass
        stream = client.assess_stream(endless(), timeout=10)
        await anext(stream)
        await stream.aclose()  # type: ignore[attr-defined]
        await asyncio.sleep(0.2)
        before = sent
        await asyncio.sleep(0.3)
        assert sent == before
        assert (await client.assess(plain(200))).decision is Decision.USEFUL


@pytest.mark.parametrize("size", [1000, 3_000_000])
def test_calls_of_any_size_are_retried(size: int) -> None:
    attempts = 0

    class Flaky(pb_grpc.UtilityGateServiceServicer):
        def Assess(self, request, context):  # type: ignore[no-untyped-def]  # noqa: N802
            nonlocal attempts
            attempts += 1
            context.abort(grpc.StatusCode.UNAVAILABLE, "try again")

    options = [("grpc.max_receive_message_length", -1)]
    server = grpc.server(ThreadPoolExecutor(2), options=options)
    pb_grpc.add_UtilityGateServiceServicer_to_server(Flaky(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with GateClient(f"127.0.0.1:{port}") as client, pytest.raises(GateUnavailableError):
            client.assess(bytes(size))
    finally:
        server.stop(0).wait()
    assert attempts > 1


def test_until_it_is_warm_the_gate_says_so(cold_gate: ColdGate) -> None:
    with grpc.insecure_channel(cold_gate.target) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        answer = health.Check(health_pb2.HealthCheckRequest(service=SERVICE), timeout=5)
        assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING
        stub = pb_grpc.UtilityGateServiceStub(channel)
        for call in (
            lambda: stub.Assess(pb.AssessRequest(image=plain(9)), timeout=5),
            lambda: stub.GetInfo(pb.GetInfoRequest(), timeout=5),
            lambda: list(stub.AssessStream(iter([pb.AssessStreamRequest()]), timeout=5)),
        ):
            with pytest.raises(grpc.RpcError) as caught:
                call()
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    gate = cold_gate.warm_up()
    with GateClient(gate.target) as client:
        assert client.assess(plain(200)).decision is Decision.USEFUL


def test_a_message_of_another_contract_is_invalid_not_unknown(gate: RunningGate) -> None:
    with grpc.insecure_channel(gate.target) as channel:
        call = channel.unary_unary(f"/{SERVICE}/Assess")
        with pytest.raises(grpc.RpcError) as caught:
            call(b"\xff\xff\xff\xff", timeout=5)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    name = "utility_gate_requests_total"
    assert gate.metric(name, method="Assess", code="INVALID_ARGUMENT") == 1


def test_metrics_tell_deadlines_from_cancellations_and_count_stream_items(
    gate: RunningGate, monkeypatch: pytest.MonkeyPatch
) -> None:
    with GateClient(gate.target) as client:
        list(client.assess_stream(iter([("a", plain(200)), ("b", b"junk")]), timeout=10))
    name = "utility_gate_images_total"
    assert gate.metric(name, method="AssessStream", code="OK") == 1
    assert gate.metric(name, method="AssessStream", code="INVALID_ARGUMENT") == 1
    monkeypatch.setattr(gate.server.current.value, "assess", lambda *_: time.sleep(0.5))
    with grpc.insecure_channel(gate.target) as channel:
        stub = pb_grpc.UtilityGateServiceStub(channel)
        with pytest.raises(grpc.RpcError):
            stub.Assess(pb.AssessRequest(image=plain(200)), timeout=0.1)
        given_up = stub.Assess.future(pb.AssessRequest(image=plain(200)), timeout=10)
        time.sleep(0.2)
        given_up.cancel()
    name, deadline = "utility_gate_requests_total", time.monotonic() + 5
    while time.monotonic() < deadline and not gate.metric(name, method="Assess", code="CANCELLED"):
        time.sleep(0.02)
    assert gate.metric(name, method="Assess", code="DEADLINE_EXCEEDED") == 1
    assert gate.metric(name, method="Assess", code="CANCELLED") == 1


def test_a_taken_port_is_a_message_not_a_traceback(
    gate: RunningGate, start_gate: Callable[..., RunningGate]
) -> None:
    with pytest.raises(ConfigError, match="choose another port"):
        start_gate(port=gate.server.port)
    with pytest.raises(ConfigError, match="choose another"):
        start_gate(web_port=gate.server.web_port)


def test_one_stream_too_many_is_told_when_to_come_again(
    start_gate: Callable[..., RunningGate],
) -> None:
    gate = start_gate(max_streams=1)
    let_go = threading.Event()

    def images() -> Iterator[tuple[str, bytes]]:
        yield "1", plain(200)
        let_go.wait(10)

    with GateClient(gate.target) as client:
        first = client.assess_stream(images())
        assert next(first)[0] == "1"
        with grpc.insecure_channel(gate.target, options=[("grpc.enable_retries", 0)]) as channel:
            second = pb_grpc.UtilityGateServiceStub(channel).AssessStream(iter([]), timeout=5)
            with pytest.raises(grpc.RpcError, match="at most 1 streams") as refused:
                next(second)
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        let_go.set()
        assert list(first) == []
        assert [number for number, _ in client.assess_stream([("2", plain(200))])] == ["2"]
