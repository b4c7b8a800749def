"""Around every RPC of the gate: errors become status codes, and it is counted and timed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, cast

import grpc

from server.errors import to_status
from server.metrics import GateMetrics

Handler = Any
"""grpc's RpcMethodHandler, which has no public type of its own for aio."""


class GuardInterceptor(grpc.aio.ServerInterceptor):
    """Maps what a servicer raises to a status with details, and observes each RPC once."""

    def __init__(self, metrics: GateMetrics, prefix: str) -> None:
        """Only methods whose path begins with `prefix` ("/package.Service/") are guarded."""
        self._metrics = metrics
        self._prefix = prefix

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """Wrap the handler of a guarded method."""
        handler = await continuation(handler_call_details)
        path = handler_call_details.method
        if handler is None or not path.startswith(self._prefix):
            return handler
        method = path.removeprefix(self._prefix)
        if handler.response_streaming:
            return grpc.stream_stream_rpc_method_handler(
                self._guard_stream(method, handler.stream_stream),
                request_deserializer=handler.request_deserializer,
                response_serializer=handler.response_serializer,
            )
        return grpc.unary_unary_rpc_method_handler(
            self._guard_unary(method, handler.unary_unary),
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    def _guard_unary(self, method: str, behavior: Any) -> Any:
        async def guarded(request: Any, context: Any) -> Any:
            with _Observation(self._metrics, method) as observation:
                try:
                    response = await behavior(request, context)
                except Exception as error:  # noqa: BLE001 - every error becomes a status
                    await observation.abort(context, error)
                observation.code = grpc.StatusCode.OK
                return response

        return guarded

    def _guard_stream(self, method: str, behavior: Any) -> Any:
        async def guarded(requests: Any, context: Any) -> AsyncIterator[Any]:
            with _Observation(self._metrics, method) as observation:
                try:
                    async for response in behavior(requests, context):
                        yield response
                except Exception as error:  # noqa: BLE001 - every error becomes a status
                    await observation.abort(context, error)
                observation.code = grpc.StatusCode.OK

        return guarded


class _Observation:
    """Counts and times one RPC; a call that just vanishes was cancelled by its caller."""

    def __init__(self, metrics: GateMetrics, method: str) -> None:
        self._metrics, self._method = metrics, method
        self.code = grpc.StatusCode.UNKNOWN

    def __enter__(self) -> _Observation:
        self._started = time.perf_counter()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and issubclass(kind, asyncio.CancelledError | GeneratorExit):
            self.code = grpc.StatusCode.CANCELLED
        elapsed = time.perf_counter() - self._started
        self._metrics.request_seconds.labels(self._method).observe(elapsed)
        self._metrics.requests.labels(self._method, self.code.name).inc()

    async def abort(self, context: Any, error: Exception) -> None:
        """End the RPC with the error's status; raises."""
        status = to_status(error)
        self.code = status.code
        await context.abort(status.code, status.message, cast(Any, status.to_trailers()))
