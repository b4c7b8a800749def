"""A real server, real clients, loopback."""

from __future__ import annotations

import asyncio
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from server.app import SERVICE
from tests.conftest import RunningGate, encode
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
from utility_gate.types import Decision, ReasonKind
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
    assert client.assess(plain(128)).decision is Decision.REVIEW
    assert client.assess(plain(200)).decision is Decision.USEFUL


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
    verdict = 'utility_gate_verdicts_total{decision="USEFUL",predictor_version="7",task="general"}'
    assert f"{verdict} 1.0" in page
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
    assert gate.server._servicer.gate is not None
    release, entered = threading.Event(), threading.Event()
    judge = gate.server._servicer.gate.assess

    def slow(data: bytes, task: str) -> object:
        entered.set()
        release.wait(20)
        return judge(data, task)

    monkeypatch.setattr(gate.server._servicer.gate, "assess", slow)
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
    def broken(data: bytes, task: str) -> None:
        raise RuntimeError("secret path /etc/gate")

    monkeypatch.setattr(gate.server._servicer.gate, "assess", broken)
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
    monkeypatch.setattr(gate.server._servicer.gate, "assess", lambda *_: time.sleep(0.5))
    with GateClient(gate.target, timeout=0.1) as client, pytest.raises(GateTimeoutError):
        client.assess(plain(200))
    with GateClient("127.0.0.1:1", timeout=2) as client, pytest.raises(GateUnavailableError):
        client.assess(plain(200))


def test_a_server_that_is_no_gate_is_named(gate: RunningGate) -> None:
    other = grpc.server(__import__("concurrent.futures", fromlist=["x"]).ThreadPoolExecutor(1))
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
    inner = gate.server._servicer.gate
    assert inner is not None
    judge, entered = inner.assess, threading.Event()

    def slow(data: bytes, task: str) -> object:
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
    monkeypatch.setattr(gate, "stop", lambda: None)


def test_a_taken_port_is_a_message_not_a_traceback(
    gate: RunningGate, start_gate: Callable[..., RunningGate]
) -> None:
    with pytest.raises(ConfigError, match="choose another port"):
        start_gate(port=gate.server.port)
    with pytest.raises(ConfigError, match="choose another"):
        start_gate(web_port=gate.server.web_port)
