"""Wires the gate; `serving.app` carries it from start to end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import grpc

from server import inference
from server.gate import Gate
from server.inference import InferenceServicer
from server.loading import load_gate, watched_files
from server.metrics import GateMetrics
from server.routes.contracts import prepare
from server.routes.table import Routes
from server.servicer import UtilityGateServicer
from server.settings import GateSettings
from serving.app import ServiceServer
from utility_gate.inference import open_inference_pb2_grpc as inference_grpc
from utility_gate.v1 import gate_pb2 as pb
from utility_gate.v1 import gate_pb2_grpc as pb_grpc

SERVICE = pb.DESCRIPTOR.services_by_name["UtilityGateService"].full_name


class GateServer(ServiceServer[Gate]):
    """One gate: `start`, then `stop`."""

    settings: GateSettings
    metrics: GateMetrics

    def __init__(self, settings: GateSettings) -> None:
        super().__init__(settings, GateMetrics())
        self._routed = tuple(dict.fromkeys(route.service for route in settings.routes))
        self._own = tuple(name for name in (SERVICE, inference.NAME) if name not in self._routed)
        self.guarded = (*self._own, *self._routed)
        self.described = self._own  # routed ones describe themselves

    async def start(self) -> None:
        """Listen, load, warm, serve.

        Raises:
            ConfigError: as `ServiceServer.start`, or if an upstream's files cannot be used.
            UtilityGateError: if a predictor cannot be used.
        """
        self._contracts = prepare(self.settings.routes, self.settings.upstreams)
        await super().start()

    def _register(self, server: grpc.aio.Server) -> None:
        concurrency = 2 * self.settings.threads
        self._servicer = UtilityGateServicer(
            self.current,
            self._workers,
            concurrency,
            self.metrics,
            self._tracer,
            self._admission.admit_image,
            self.settings.max_streams,
            self._admission.charge_images,
            self.settings.threads,
        )
        self._inference = InferenceServicer(
            self._servicer, lambda: self._ready, self.settings.max_images_per_request, concurrency
        )
        pb_grpc.add_UtilityGateServiceServicer_to_server(self._servicer, server)
        if inference.NAME in self._own:
            inference_grpc.add_GRPCInferenceServiceServicer_to_server(self._inference, server)
        self._routes = Routes(
            self.settings.routes,
            self.settings.upstreams,
            self._contracts,
            self._servicer,
            self.metrics.routes,
            self._tracer,
            lambda service, serving: self._health.report_service(service, serving=serving),
            keyed=self.settings.api_keys is not None,
            max_images=self.settings.max_images_per_request,
            concurrency=concurrency,
        )
        server.add_generic_rpc_handlers((self._routes,))

    def _label(self, service: str, method: str) -> str:
        return self._routes.label(f"{service}/{method}") if service in self._routed else method

    @property
    def _idle(self) -> bool:
        return super()._idle and self._routes.idle

    async def _disconnect(self) -> None:
        await self._routes.close()

    def _load(self) -> Gate:
        return load_gate(self.settings, self.metrics, self._tracer)

    def _watched_files(self) -> Sequence[Path]:
        return watched_files(self.settings)

    def _swap(self, loaded: Gate) -> None:
        super()._swap(loaded)
        loaded.publish()
