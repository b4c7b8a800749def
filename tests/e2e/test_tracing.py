"""Spans of a real server: the tree, the caller's trace, errors, collectors that are not there."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from server.app import SERVICE
from server.settings import GateSettings
from serving import otel, tracing
from serving.tracing import NO_TRACER, open_tracer
from tests import shop
from tests.conftest import RunningGate, encode
from utility_gate.errors import ConfigError
from utility_gate.v1 import gate_pb2 as pb
from utility_gate.v1 import gate_pb2_grpc as pb_grpc

ENDPOINT = "http://127.0.0.1:9"
"""A port where nobody listens."""


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SDK_DISABLED", "TRACES_EXPORTER", "EXPORTER_OTLP_ENDPOINT", "SERVICE_NAME"):
        monkeypatch.delenv(f"OTEL_{name}", raising=False)


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """Takes the place of the exporter by the network."""
    exporter = InMemorySpanExporter()
    monkeypatch.setattr(otel, "OTLPSpanExporter", lambda endpoint: exporter)
    return exporter


def spans_of(gate: RunningGate, memory: InMemorySpanExporter) -> tuple[ReadableSpan, ...]:
    gate.server._tracer._provider.force_flush()
    return memory.get_finished_spans()


def plain(width: int = 64) -> bytes:
    return encode(np.full((64, width, 3), 200, np.uint8), "PNG")


def assess(
    gate: RunningGate, request: pb.AssessRequest, *metadata: tuple[str, str]
) -> grpc.StatusCode:
    with grpc.insecure_channel(gate.target) as channel:
        call = pb_grpc.UtilityGateServiceStub(channel).Assess.future(
            request, timeout=10, metadata=metadata
        )
        call.exception()
        return call.code()


def by_name(spans: Sequence[ReadableSpan]) -> dict[str, ReadableSpan]:
    assert len({span.name for span in spans}) == len(spans)
    return {span.name: span for span in spans}


def test_the_tree_of_a_request(
    start_gate: Callable[..., RunningGate], memory: InMemorySpanExporter
) -> None:
    gate = start_gate(trace_endpoint=ENDPOINT)
    trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    metadata = (("traceparent", f"00-{trace}-{parent}-01"), ("x-request-id", "order-66"))
    data = plain(80)
    assert assess(gate, pb.AssessRequest(image=data), *metadata) is grpc.StatusCode.OK
    spans = by_name(spans_of(gate, memory))
    assert set(spans) == {f"{SERVICE}/Assess", "queue", "decode", "infer"}
    server = spans.pop(f"{SERVICE}/Assess")
    assert server.kind is SpanKind.SERVER
    assert server.parent is not None
    assert f"{server.parent.trace_id:032x}" == trace
    assert f"{server.parent.span_id:016x}" == parent
    told = dict(server.attributes or {})
    assert told.pop("utility_gate.utility") == pytest.approx(0.9, abs=0.1)
    assert told == {
        "rpc.system.name": "grpc",
        "rpc.method": f"{SERVICE}/Assess",
        "rpc.response.status_code": "OK",
        "client.address": "127.0.0.1",
        "utility_gate.request_id": "order-66",
        "utility_gate.task": "general",
        "utility_gate.mode": "ENFORCE",
        "utility_gate.decision": "USEFUL",
        "utility_gate.predictor.name": "brightness",
        "utility_gate.predictor.version": "7",
        "utility_gate.image.bytes": len(data),
        "utility_gate.image.format": "PNG",
        "utility_gate.image.width": 80,
        "utility_gate.image.height": 64,
    }
    assert server.status.status_code is StatusCode.UNSET
    assert server.resource.attributes["service.name"] == "utility-gate"
    for child in spans.values():
        assert child.parent == server.context
        assert f"{child.context.trace_id:032x}" == trace
        assert server.start_time <= child.start_time <= child.end_time <= server.end_time
    assert spans["queue"].end_time <= spans["decode"].start_time
    assert spans["decode"].end_time <= spans["infer"].start_time


def test_without_a_sound_traceparent_a_trace_begins_here(
    start_gate: Callable[..., RunningGate], memory: InMemorySpanExporter
) -> None:
    gate = start_gate(trace_endpoint=ENDPOINT)
    assess(gate, pb.AssessRequest(image=plain()), ("traceparent", "00-junk-01"))
    assert by_name(spans_of(gate, memory))[f"{SERVICE}/Assess"].parent is None


def test_concurrent_requests_do_not_mix(
    start_gate: Callable[..., RunningGate], memory: InMemorySpanExporter
) -> None:
    gate = start_gate(trace_endpoint=ENDPOINT, workers=4)

    def ask(number: int) -> None:
        context = f"00-{number + 1:032x}-{number + 1:016x}-01"
        request = pb.AssessRequest(image=plain(100 + number))
        assess(gate, request, ("traceparent", context), ("x-request-id", str(number)))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(24)))
    spans = spans_of(gate, memory)
    assert len(spans) == 4 * 24
    for number in range(24):
        mine = by_name([span for span in spans if span.context.trace_id == number + 1])
        server = mine[f"{SERVICE}/Assess"]
        assert server.attributes is not None
        assert server.attributes["utility_gate.request_id"] == str(number)
        assert server.attributes["utility_gate.image.width"] == 100 + number
        for name in ("queue", "decode", "infer"):
            assert mine[name].parent == server.context


def test_each_image_of_a_stream_has_a_span_around_its_own(
    start_gate: Callable[..., RunningGate], memory: InMemorySpanExporter
) -> None:
    gate = start_gate(trace_endpoint=ENDPOINT)
    sent = [pb.AssessStreamRequest(id=str(n), image=plain(100 + n)) for n in range(6)]
    sent.append(pb.AssessStreamRequest(id="bad", image=b"junk"))
    with grpc.insecure_channel(gate.target) as channel:
        stub = pb_grpc.UtilityGateServiceStub(channel)
        assert len(list(stub.AssessStream(iter(sent), timeout=10))) == 7
    spans = spans_of(gate, memory)
    (server,) = [span for span in spans if span.name == f"{SERVICE}/AssessStream"]
    images = [span for span in spans if span.name == "image"]
    assert all(span.parent == server.context for span in images)
    for image in images:
        assert image.attributes is not None
        names = {span.name for span in spans if span.parent == image.context}
        if image.attributes["utility_gate.image.id"] == "bad":
            assert image.status.status_code is StatusCode.ERROR
            assert names == {"queue", "decode"}
        else:
            width = image.attributes["utility_gate.image.width"]
            assert image.attributes["utility_gate.image.id"] == str(int(str(width)) - 100)
            assert names == {"queue", "decode", "infer"}
    assert len(images) == 7


def test_errors_mark_spans_as_the_conventions_say(
    start_gate: Callable[..., RunningGate],
    memory: InMemorySpanExporter,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gate = start_gate(trace_endpoint=ENDPOINT)
    # The caller's mistake is no error of the server, but is one of the decoding.
    assert assess(gate, pb.AssessRequest(image=b"junk")) is grpc.StatusCode.INVALID_ARGUMENT
    spans = by_name(spans_of(gate, memory))
    server, decode = spans[f"{SERVICE}/Assess"], spans["decode"]
    assert server.attributes is not None
    assert decode.attributes is not None
    assert server.attributes["rpc.response.status_code"] == "INVALID_ARGUMENT"
    assert server.status.status_code is StatusCode.UNSET
    assert decode.status.status_code is StatusCode.ERROR
    assert decode.attributes["error.type"] == "NotAnImageError"
    assert "infer" not in spans
    # The server's own is.
    memory.clear()
    inner: Any = gate.server.current.value

    def broken(*_: object) -> None:
        raise RuntimeError("secret path")

    monkeypatch.setattr(inner, "assess", broken)
    assert assess(gate, pb.AssessRequest(image=b"junk")) is grpc.StatusCode.INTERNAL
    server = by_name(spans_of(gate, memory))[f"{SERVICE}/Assess"]
    assert server.attributes is not None
    assert server.status.status_code is StatusCode.ERROR
    assert server.attributes["rpc.response.status_code"] == "INTERNAL"
    assert "secret" not in server.to_json()


def test_a_call_given_up_in_the_queue_ends_its_spans(
    start_gate: Callable[..., RunningGate],
    memory: InMemorySpanExporter,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gate = start_gate(trace_endpoint=ENDPOINT, workers=1)
    inner: Any = gate.server.current.value
    judge, entered, release = inner.assess, threading.Event(), threading.Event()

    def slow(data: bytes, task: str, mode: object) -> object:
        entered.set()
        release.wait(10)
        return judge(data, task)

    monkeypatch.setattr(inner, "assess", slow)
    with grpc.insecure_channel(gate.target) as channel:
        stub = pb_grpc.UtilityGateServiceStub(channel)
        first = stub.Assess.future(pb.AssessRequest(image=plain()), timeout=10)
        assert entered.wait(5)
        second = stub.Assess.future(pb.AssessRequest(image=plain()), timeout=10)
        time.sleep(0.3)
        second.cancel()
        time.sleep(0.3)
        release.set()
        first.result(10)
    spans = spans_of(gate, memory)
    codes = [(span.attributes or {}).get("rpc.response.status_code") for span in spans]
    (given_up,) = [span for span, code in zip(spans, codes, strict=True) if code == "CANCELLED"]
    (queue,) = [span for span in spans if span.parent == given_up.context]
    assert queue.name == "queue"
    assert queue.end_time - queue.start_time > 0.2e9


def test_a_stream_given_up_ends_its_span(
    start_gate: Callable[..., RunningGate], memory: InMemorySpanExporter
) -> None:
    gate = start_gate(trace_endpoint=ENDPOINT)

    def endless() -> Iterator[pb.AssessStreamRequest]:
        while True:
            yield pb.AssessStreamRequest(id="x", image=plain())
            time.sleep(0.01)

    with grpc.insecure_channel(gate.target) as channel:
        stream = pb_grpc.UtilityGateServiceStub(channel).AssessStream(endless(), timeout=10)
        next(stream)
        stream.cancel()
    name, latest = f"{SERVICE}/AssessStream", time.monotonic() + 5
    while time.monotonic() < latest and name not in [s.name for s in spans_of(gate, memory)]:
        time.sleep(0.05)
    (server,) = [span for span in spans_of(gate, memory) if span.name == name]
    assert server.attributes is not None
    assert server.attributes["rpc.response.status_code"] == "CANCELLED"


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """What an OpenTelemetry collector is to an exporter."""

    def __init__(self) -> None:
        self.received: list[trace_service_pb2.ExportTraceServiceRequest] = []
        self.release = threading.Event()
        self.release.set()
        self._server = grpc.server(ThreadPoolExecutor(2))
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(self, self._server)
        self._server.start()

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.release.wait(20)
        self.received.append(request)
        return trace_service_pb2.ExportTraceServiceResponse()

    def stop(self) -> None:
        self.release.set()
        self._server.stop(0).wait()


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.stop()


def stop(gate: RunningGate) -> float:
    """Seconds that the gate took to end."""
    started = time.perf_counter()
    gate.stop()
    gate.stop = lambda: None  # type: ignore[method-assign]
    return time.perf_counter() - started


def test_spans_reach_a_collector_before_the_gate_has_ended(
    start_gate: Callable[..., RunningGate], collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector.port}")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "gate-7")
    gate = start_gate()
    assert assess(gate, pb.AssessRequest(image=plain())) is grpc.StatusCode.OK
    stop(gate)
    (sent,) = collector.received
    (resource,) = sent.resource_spans
    named = {a.key: a.value.string_value for a in resource.resource.attributes}
    assert named["service.name"] == "gate-7"
    (scope,) = resource.scope_spans
    spans = {span.name: span for span in scope.spans}
    server = spans.pop(f"{SERVICE}/Assess")
    assert set(spans) == {"queue", "decode", "infer"}
    assert {span.parent_span_id for span in spans.values()} == {server.span_id}


@pytest.mark.parametrize("state", ["gone", "hanging"])
def test_a_dead_collector_costs_no_request_and_no_more_than_two_seconds_at_the_end(
    start_gate: Callable[..., RunningGate],
    collector: Collector,
    monkeypatch: pytest.MonkeyPatch,
    state: str,
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "8")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4")
    if state == "hanging":
        collector.release.clear()
    endpoint = ENDPOINT if state == "gone" else f"http://127.0.0.1:{collector.port}"
    gate = start_gate(trace_endpoint=endpoint)
    with grpc.insecure_channel(gate.target) as channel:
        stub = pb_grpc.UtilityGateServiceStub(channel)
        request = pb.AssessRequest(image=plain())
        stub.Assess(request, timeout=5)
        slowest = 0.0
        for _ in range(40):
            started = time.perf_counter()
            stub.Assess(request, timeout=5)
            slowest = max(slowest, time.perf_counter() - started)
    assert slowest < 1
    assert stop(gate) < tracing.FLUSH_SECONDS + 1


class FailingExporter(SpanExporter):
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        raise RuntimeError("cannot export")


def test_an_exporter_that_fails_harms_nobody(
    start_gate: Callable[..., RunningGate], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(otel, "OTLPSpanExporter", lambda endpoint: FailingExporter())
    gate = start_gate(trace_endpoint=ENDPOINT)
    assert assess(gate, pb.AssessRequest(image=plain())) is grpc.StatusCode.OK
    stop(gate)


def test_without_a_configuration_nothing_of_opentelemetry_is_imported() -> None:
    code = """
import asyncio, os, sys
for name in [name for name in os.environ if name.startswith("OTEL_")]:
    del os.environ[name]
from server.app import GateServer
from server.settings import GateSettings
async def main():
    server = GateServer(GateSettings(port=0, web_port=0, workers=1, drain_seconds=0))
    await server.start()
    await server.stop()
asyncio.run(main())
print([name for name in sys.modules if name.startswith("opentelemetry")])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": ENDPOINT},
        {"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": ENDPOINT},
    ],
)
def test_what_leaves_tracing_off(variables: dict[str, str]) -> None:
    assert open_tracer("", variables) is NO_TRACER


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "expected otlp or none, got 'zipkin'"),
        (
            {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"},
            "expected grpc",
        ),
    ],
)
def test_what_cannot_be_had_is_refused(variables: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        open_tracer("", variables)


def test_what_the_sdk_refuses_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "lzma")
    with pytest.raises(ConfigError, match="lzma"):
        open_tracer(ENDPOINT, {})


def test_packages_that_are_missing_are_named(
    monkeypatch: pytest.MonkeyPatch, start_gate: Callable[..., RunningGate]
) -> None:
    monkeypatch.delitem(sys.modules, "serving.otel")
    monkeypatch.delattr("serving.otel")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(ConfigError, match=r"pip install '\.\[trace\]'"):
        start_gate(trace_endpoint=ENDPOINT)


def test_a_platform_s_variables_without_the_packages_are_warned_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delitem(sys.modules, "serving.otel")
    monkeypatch.delattr("serving.otel")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    assert not open_tracer("", {"OTEL_EXPORTER_OTLP_ENDPOINT": ENDPOINT}).enabled
    assert "no traces" in caplog.text


def test_an_endpoint_without_a_scheme_is_refused() -> None:
    with pytest.raises(ValueError, match="trace_endpoint"):
        GateSettings(trace_endpoint="collector:4317")


def test_a_span_ends_once(memory: InMemorySpanExporter) -> None:
    tracer = otel.OtelTracer(ENDPOINT)
    span = asyncio.run(_rpc(tracer))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: span.end("OK"), range(20)))
    tracer.close(2)
    assert len(memory.get_finished_spans()) == 1


async def _rpc(tracer: tracing.Tracer) -> tracing.Span:
    return tracer.rpc("a/b", (), {})


def test_a_forwarded_call_goes_on_below_ours(
    start_gate: Callable[..., RunningGate], memory: InMemorySpanExporter
) -> None:
    trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    sent = (("traceparent", f"00-{trace}-{parent}-01"),)
    with shop.Shop().serve() as pipeline:
        gate = start_gate(
            trace_endpoint=ENDPOINT,
            upstreams={"shop": {"addresses": [pipeline.target]}},
            routes=[{"method": shop.LOOK, "upstream": "shop", "image_field": "image"}],
        )
        with grpc.insecure_channel(gate.target) as channel:
            asked = health_pb2.HealthCheckRequest(service=shop.SERVICE)
            watch = health_pb2_grpc.HealthStub(channel).Watch(asked, timeout=10)
            while next(watch).status != health_pb2.HealthCheckResponse.SERVING:
                pass
            watch.cancel()
            shop.call(channel)(shop.LookRequest(image=plain()), timeout=10, metadata=sent)
        spans = by_name(spans_of(gate, memory))
    assert set(spans) == {shop.LOOK, "image", "queue", "decode", "infer", "forward"}
    forward = spans["forward"].context
    assert forward is not None
    assert spans["forward"].parent == spans[shop.LOOK].context
    arrived = dict(pipeline.metadata)["traceparent"]
    assert arrived == f"00-{trace}-{forward.span_id:016x}-01"
