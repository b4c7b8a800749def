"""Builds and wires the gate, and carries it from start to end."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Callable, Coroutine
from typing import Any

import grpc
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from server import health
from server.gate import Gate
from server.health import HealthServicer
from server.interceptors import GuardInterceptor
from server.metrics import GateMetrics
from server.servicer import UtilityGateServicer
from server.settings import GateSettings
from server.web import WebServer
from server.workers import Workers
from utility_gate.errors import ConfigError, ServiceError
from utility_gate.predictor import UtilityPredictor
from utility_gate.v1 import gate_pb2 as pb
from utility_gate.v1 import gate_pb2_grpc as pb_grpc

log = logging.getLogger(__name__)

SERVICE = pb.DESCRIPTOR.services_by_name["UtilityGateService"].full_name

_MESSAGE_ROOM = 4 * 1024 * 1024
"""How far a message may exceed the image limit and still be answered with its own error."""


class GateServer:
    """One gate: `start`, then `stop`. `port` and `web_port` are known after `start`."""

    def __init__(self, settings: GateSettings) -> None:
        self.settings = settings
        self.metrics = GateMetrics()
        self.port = 0
        self.web_port = 0
        self._ready = False
        self.metrics.ready.set_function(lambda: float(self._ready))
        self._started = time.perf_counter()

    async def start(self) -> None:
        """Listen, load, warm, serve.

        Raises:
            ConfigError: if an address cannot be listened on.
            CheckpointError: if a predictor cannot be used.
        """
        # 1. Whoever asks finds us alive and not ready.
        self._health = HealthServicer(SERVICE)
        await self._health.report(serving=False)
        self._web = WebServer(
            self.settings.host, self.settings.web_port, self.metrics.registry, lambda: self._ready
        )
        self.web_port = self._web.port
        # 2. The workers and the service, still without a gate.
        self._workers = Workers(self.settings.workers, self.settings.max_waiting, self.metrics)
        self._servicer = UtilityGateServicer(self._workers, 2 * self.settings.workers, self.metrics)
        self._server = self._build_server()
        try:
            self.port = self._listen()
            await self._server.start()
            # 3. Predictors load and repeat their conformance vectors, off the event loop: warm.
            self._servicer.gate = await asyncio.to_thread(self._load_gate)
        except BaseException:
            await self._close(grace=0)
            raise
        # 4. Ready.
        self._ready = True
        await self._health.report(serving=True)
        log.info("ready after %.1f s", time.perf_counter() - self._started)

    async def stop(self) -> None:
        """Drain and end; what was accepted is finished within `grace_seconds`."""
        # 1. Balancers and probes are told first, while calls are still taken.
        log.info("draining for %.1f s", self.settings.drain_seconds)
        self._ready = False
        await self._health.enter_graceful_shutdown()
        await asyncio.sleep(self.settings.drain_seconds)
        # 2. Streams take no further image; those who watch our health have seen the end of it.
        self._servicer.closing.set()
        self._health.end_watches()
        # 3. New calls are refused, accepted ones finish.
        await self._close(self.settings.grace_seconds)
        log.info("stopped")

    async def wait_for_termination(self) -> None:
        """Return when the gRPC server has ended, which only `stop` or a defect makes it do."""
        # Shielded: to cancel the wait itself would break the server's own end.
        await asyncio.shield(self._server.wait_for_termination())

    @property
    def endpoints(self) -> dict[str, str]:
        """Where to find what."""
        host = self.settings.host
        web = f"http://{_join(host, self.web_port)}"
        return {
            "grpc": _join(host, self.port),
            "metrics": f"{web}/metrics",
            "alive": f"{web}/healthz",
            "ready": f"{web}/readyz",
        }

    def _load_gate(self) -> Gate:
        predictors = {}
        for task, source in self.settings.predictors.items():
            predictors[task] = predictor = UtilityPredictor.load(source)
            info = predictor.card.info
            log.info("task %s: %s %s, %s", task, info.name, info.version, info.digest[:12])
        return Gate(predictors, self.settings.limits, metrics=self.metrics)

    def _build_server(self) -> grpc.aio.Server:
        server = grpc.aio.server(
            interceptors=[GuardInterceptor(self.metrics, f"/{SERVICE}/")],
            options=[
                ("grpc.max_receive_message_length", self.settings.max_image_bytes + _MESSAGE_ROOM),
                ("grpc.so_reuseport", 0),  # two gates on one port would be a mistake
                ("grpc.http2.min_recv_ping_interval_without_data_ms", 30_000),
            ],
        )
        pb_grpc.add_UtilityGateServiceServicer_to_server(self._servicer, server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        if self.settings.reflection:
            names = (SERVICE, health.NAME, reflection.SERVICE_NAME)
            reflection.enable_server_reflection(names, server)
        return server

    def _listen(self) -> int:
        address = _join(self.settings.host, self.settings.port)
        try:
            return self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise ConfigError(
                f"{address} cannot be listened on ({error}); choose another port"
            ) from error

    async def _close(self, grace: float) -> None:
        await self._server.stop(grace)
        await asyncio.to_thread(self._workers.close)
        await asyncio.to_thread(self._web.close)


def _join(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def serve(settings: GateSettings, on_ready: Callable[[GateServer], None]) -> None:
    """Serve until SIGTERM or SIGINT, then drain; `on_ready` is called once it serves.

    Raises:
        ConfigError, CheckpointError: as `GateServer.start`.
        ServiceError: if the gRPC server ends by itself.
    """
    loop = asyncio.get_running_loop()
    asked_to_stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked_to_stop.set)
    server = GateServer(settings)
    if not await _unless(asked_to_stop, server.start()):
        log.info("asked to stop while starting")
        return
    on_ready(server)
    if await _unless(asked_to_stop, server.wait_for_termination()):
        raise ServiceError("the gRPC server ended by itself; see the log above")
    await server.stop()


async def _unless(asked_to_stop: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """Do `work`; cancel it and return False if asked to stop first."""
    task, asked = asyncio.ensure_future(work), asyncio.ensure_future(asked_to_stop.wait())
    await asyncio.wait({task, asked}, return_when=asyncio.FIRST_COMPLETED)
    finished = task.done()
    for future in (task, asked):
        future.cancel()
    await asyncio.wait({task, asked})
    if finished:
        task.result()
    return finished
