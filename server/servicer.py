"""gRPC messages to calls of the gate and back; decides nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import grpc

from server.errors import to_code, to_status
from server.gate import Gate
from server.metrics import GateMetrics
from server.streams import map_unordered
from server.workers import Workers
from utility_gate import wire
from utility_gate.errors import NotReadyError
from utility_gate.types import Verdict
from utility_gate.v1 import gate_pb2 as pb
from utility_gate.v1 import gate_pb2_grpc as pb_grpc

Context = grpc.aio.ServicerContext[object, object]


class UtilityGateServicer(pb_grpc.UtilityGateServiceServicer):
    """Serves `gate` through `workers`; without a gate (starting) every call is UNAVAILABLE.

    Once `closing` is set, streams take no further image and end when theirs are answered.
    """

    def __init__(self, workers: Workers, stream_concurrency: int, metrics: GateMetrics) -> None:
        self.gate: Gate | None = None
        self.closing = asyncio.Event()
        self._workers = workers
        self._stream_concurrency = stream_concurrency
        self._metrics = metrics

    async def Assess(  # noqa: N802 - named by the contract
        self,
        request: pb.AssessRequest,
        context: Context,
    ) -> pb.AssessResponse:
        """Judge one image."""
        verdict = await self._judge("Assess", request.image, request.task)
        return pb.AssessResponse(verdict=wire.from_verdict(verdict))

    async def AssessStream(  # noqa: N802
        self,
        requests: AsyncIterator[pb.AssessStreamRequest],
        context: Context,
    ) -> AsyncIterator[pb.AssessStreamResponse]:
        """Judge images as they arrive."""
        self._ready()
        answers = map_unordered(requests, self._answer, self._stream_concurrency, self.closing)
        async with contextlib.aclosing(answers):
            async for answer in answers:
                yield answer
        if self.closing.is_set():
            raise NotReadyError("the gate is shutting down; send the rest to another one")

    async def GetInfo(  # noqa: N802
        self,
        request: pb.GetInfoRequest,
        context: Context,
    ) -> pb.GetInfoResponse:
        """Say what is served."""
        return wire.from_info(self._ready().info)

    async def _answer(self, request: pb.AssessStreamRequest) -> pb.AssessStreamResponse:
        try:
            verdict = await self._judge("AssessStream", request.image, request.task, patient=True)
        except Exception as error:  # noqa: BLE001 - one image must not end the stream
            return pb.AssessStreamResponse(id=request.id, error=to_status(error).to_stream_error())
        return pb.AssessStreamResponse(id=request.id, verdict=wire.from_verdict(verdict))

    async def _judge(
        self, method: str, image: bytes, task: str, *, patient: bool = False
    ) -> Verdict:
        gate = self._ready()
        code = grpc.StatusCode.CANCELLED
        try:
            verdict = await self._workers.run(lambda: gate.assess(image, task), patient=patient)
            code = grpc.StatusCode.OK
        except Exception as error:
            code = to_code(error)
            raise
        finally:
            self._metrics.images.labels(method, code.name).inc()
        return verdict

    def _ready(self) -> Gate:
        if self.gate is None:
            raise NotReadyError("the gate is starting; try again in a moment")
        return self.gate
