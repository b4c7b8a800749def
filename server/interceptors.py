"""Around every RPC of the gate: errors become status codes, and it is counted and timed."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, cast

import grpc
from google.protobuf.message import DecodeError

from server.errors import to_status
from server.metrics import GateMetrics
from utility_gate.errors import InputError

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
        # Messages arrive undecoded, so that one that does not decode is answered like any error.
        if handler.response_streaming:
            return grpc.stream_stream_rpc_method_handler(
                self._guard_stream(method, handler),
                response_serializer=handler.response_serializer,
            )
        return grpc.unary_unary_rpc_method_handler(
            self._guard_unary(method, handler), response_serializer=handler.response_serializer
        )

    def _guard_unary(self, method: str, handler: Handler) -> Any:
        async def guarded(message: bytes, context: Any) -> Any:
            with _Observation(self._metrics, method, context) as observation:
                try:
                    request = _decode(message, handler)
                    response = await handler.unary_unary(request, context)
                except Exception as error:  # noqa: BLE001 - every error becomes a status
                    await observation.abort(error)
                observation.code = grpc.StatusCode.OK
                return response

        return guarded

    def _guard_stream(self, method: str, handler: Handler) -> Any:
        async def guarded(messages: AsyncIterator[bytes], context: Any) -> AsyncIterator[Any]:
            requests = _decode_all(messages, handler)
            with _Observation(self._metrics, method, context) as observation:
                try:
                    responses = handler.stream_stream(requests, context)
                    async with contextlib.aclosing(responses):
                        async for response in responses:
                            yield response
                except Exception as error:  # noqa: BLE001 - every error becomes a status
                    await observation.abort(error)
                observation.code = grpc.StatusCode.OK

        return guarded


def _decode(message: bytes, handler: Handler) -> Any:
    try:
        return handler.request_deserializer(message)
    except DecodeError as error:
        raise InputError(f"expected a message of the contract, got other bytes: {error}") from error


async def _decode_all(messages: AsyncIterator[bytes], handler: Handler) -> AsyncIterator[Any]:
    async for message in messages:
        yield _decode(message, handler)


class _Observation:
    """Counts and times one RPC; a call that just vanishes was given up by its caller."""

    def __init__(self, metrics: GateMetrics, method: str, context: Any) -> None:
        self._metrics, self._method, self._context = metrics, method, context
        self.code = grpc.StatusCode.UNKNOWN
        self._recorded = False

    def __enter__(self) -> _Observation:
        self._started = time.perf_counter()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and issubclass(kind, asyncio.CancelledError | GeneratorExit):
            left = self._context.time_remaining()
            expired = left is not None and left <= 0
            self.code = grpc.StatusCode.DEADLINE_EXCEEDED if expired else grpc.StatusCode.CANCELLED
        self._record()

    async def abort(self, error: Exception) -> None:
        """End the RPC with the error's status; raises."""
        status = to_status(error)
        self.code = status.code
        self._record()  # first: whoever has the answer may look at the metrics next
        await self._context.abort(status.code, status.message, cast(Any, status.to_trailers()))

    def _record(self) -> None:
        if self._recorded:
            return
        self._recorded = True
        elapsed = time.perf_counter() - self._started
        self._metrics.request_seconds.labels(self._method).observe(elapsed)
        self._metrics.requests.labels(self._method, self.code.name).inc()
