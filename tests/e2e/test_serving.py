"""What every service of ours has, seen on the smallest one: an image in, its size out."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import grpc
import pytest
from google.protobuf.wrappers_pb2 import BytesValue, StringValue
from grpc_health.v1 import health_pb2, health_pb2_grpc
from pydantic_settings import SettingsConfigDict

from serving.app import ServiceServer, serve
from serving.auth import client_identity
from serving.keys import digest
from serving.metrics import ServiceMetrics
from serving.settings import Port, ServiceSettings, load_settings
from serving.tracing import queued
from tests.conftest import RunningService
from utility_gate.errors import ConfigError
from utility_gate.images import DecodeLimits, decode

SERVICE = "sizes.v1.SizeService"


class SizeSettings(ServiceSettings):
    model_config = SettingsConfigDict(env_prefix="SIZE_PIPELINE_")
    noun: ClassVar[str] = "pipeline"

    port: Port = 50052
    unit: str = "px"


class Sizes:
    """What is loaded: here, a file that holds the unit, if there is one."""

    def __init__(self, unit: str, limits: DecodeLimits) -> None:
        self._unit, self._limits = unit, limits

    def measure(self, data: bytes) -> str:
        image = decode(data, self._limits)
        return f"{image.width} x {image.height} {self._unit}"


class SizeServer(ServiceServer[Sizes]):
    guarded = (SERVICE,)
    settings: SizeSettings

    def __init__(self, settings: SizeSettings) -> None:
        super().__init__(settings, ServiceMetrics("size_pipeline"))
        self.may_load = threading.Event()
        self.may_load.set()

    def _register(self, server: grpc.aio.Server) -> None:
        method = grpc.unary_unary_rpc_method_handler(
            self._measure, BytesValue.FromString, StringValue.SerializeToString
        )
        handlers = grpc.method_handlers_generic_handler(SERVICE, {"Measure": method})
        server.add_generic_rpc_handlers((handlers,))

    def _load(self) -> Sizes:
        assert self.may_load.wait(20)
        file = Path(self.settings.unit)
        unit = file.read_text() if file.is_absolute() else self.settings.unit
        return Sizes(unit, self.settings.limits)

    def _watched_files(self) -> Sequence[Path]:
        return [Path(self.settings.unit)]

    async def _measure(self, request: BytesValue, context: Any) -> StringValue:
        sizes = self.current.ready()
        self._admission.admit_image()
        with queued(self._tracer, lambda: sizes.measure(request.value)) as work:
            size = await self._workers.run(
                work, client=client_identity(), seconds=context.time_remaining()
            )
        return StringValue(value=size)


def make(**changes: Any) -> SizeServer:
    values = {"port": 0, "web_port": 0, "workers": 1, "drain_seconds": 0}
    return SizeServer(SizeSettings(**(values | changes)))


@pytest.fixture
def service() -> Iterator[RunningService]:
    running = RunningService(make())
    yield running
    running.stop()


def ask(target: str, image: bytes, **metadata: str) -> str:
    with grpc.insecure_channel(target) as channel:
        measure = channel.unary_unary(
            f"/{SERVICE}/Measure", BytesValue.SerializeToString, StringValue.FromString
        )
        answer = measure(BytesValue(value=image), timeout=20, metadata=tuple(metadata.items()))
    return str(answer.value)


def test_it_answers_and_is_counted_under_its_own_name(service: RunningService, jpeg: bytes) -> None:
    assert ask(service.target, jpeg) == "320 x 240 px"
    told = {"method": "Measure", "code": "OK"}
    assert service.metric("size_pipeline_requests_total", **told) == 1
    assert service.metric("size_pipeline_ready") == 1
    names = {metric.name for metric in service.server.metrics.registry.collect()}
    assert all(name.startswith("size_pipeline_") for name in names)


def test_its_health_has_its_name(service: RunningService) -> None:
    with grpc.insecure_channel(service.target) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for name in ("", SERVICE):
            answer = stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=5)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        request = health_pb2.HealthCheckRequest(service="utility_gate.v1.UtilityGateService")
        with pytest.raises(grpc.RpcError) as refused:
            stub.Check(request, timeout=5)
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND


def test_errors_are_statuses(service: RunningService) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        ask(service.target, b"no image")
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_it_calls_itself_by_its_own_noun(tmp_path: Path, jpeg: bytes) -> None:
    keys = tmp_path / "keys.toml"
    keys.write_text(f'[caller]\nsha256 = "{digest("secret")}"\n')
    server = make(api_keys=keys)
    server.may_load.clear()
    with ThreadPoolExecutor(1) as pool:
        starting = pool.submit(RunningService, server)
        while not server.port:
            threading.Event().wait(0.01)
        target = f"127.0.0.1:{server.port}"
        with pytest.raises(grpc.RpcError) as refused:
            ask(target, jpeg)
        assert "whoever runs this pipeline hands them out" in str(refused.value.details())
        with pytest.raises(grpc.RpcError) as early:
            ask(target, jpeg, authorization="Bearer secret")
        assert early.value.details() == "the pipeline is starting; try again in a moment"
        server.may_load.set()
        running = starting.result(20)
    assert ask(target, jpeg, authorization="Bearer secret") == "320 x 240 px"
    running.stop()


def test_it_loads_again_when_told(tmp_path: Path, jpeg: bytes) -> None:
    unit = tmp_path / "unit"
    unit.write_text("dots")
    running = RunningService(make(unit=str(unit)))
    unit.write_text("pixels")
    assert ask(running.target, jpeg) == "320 x 240 dots"
    assert running.call(running.server.reload())
    assert ask(running.target, jpeg) == "320 x 240 pixels"
    unit.unlink()
    assert not running.call(running.server.reload())
    assert ask(running.target, jpeg) == "320 x 240 pixels"
    assert running.metric("size_pipeline_reloads_total", outcome="failed") == 1
    running.stop()


async def test_it_serves_until_a_signal(caplog: pytest.LogCaptureFixture) -> None:
    ready: list[dict[str, str]] = []

    def on_ready(server: SizeServer) -> None:
        ready.append(server.endpoints)
        signal.raise_signal(signal.SIGTERM)

    with caplog.at_level(logging.INFO, "serving.app"):
        await serve(make, on_ready)
    assert set(ready[0]) == {"grpc", "metrics", "alive", "ready"}
    assert caplog.messages[-1] == "stopped"


def test_its_settings_have_a_prefix_of_their_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "sizes.toml"
    file.write_text('unit = "in"\nweb_port = 2\nworkers = 3\n')
    monkeypatch.setenv("SIZE_PIPELINE_WEB_PORT", "20")
    monkeypatch.setenv("UTILITY_GATE_WORKERS", "30")
    settings = load_settings(SizeSettings, file, workers=None)
    assert (settings.port, settings.web_port, settings.workers) == (50052, 20, 3)
    assert settings.unit == "in"
    monkeypatch.setenv("SIZE_PIPELINE_UNITS", "in")
    with pytest.raises(ConfigError, match="SIZE_PIPELINE_UNITS"):
        load_settings(SizeSettings)
