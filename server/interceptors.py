"""Around every RPC of the gate: errors become status codes, and it is observed."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from server.access import AccessLog
from server.budget import check_elements
from server.metrics import GateMetrics
from server.observation import Observer
from server.tracing import NO_TRACER, Tracer
from utility_gate.errors import InputError

Handler = Any
"""grpc's RpcMethodHandler, which has no public type of its own for aio."""


class GuardInterceptor(grpc.aio.ServerInterceptor):
    """Maps what a servicer raises to a status with details, and observes each RPC once."""

    def __init__(
        self,
        metrics: GateMetrics,
        prefix: str,
        tracer: Tracer = NO_TRACER,
        access: AccessLog | None = None,
    ) -> None:
        """Only methods whose path begins with `prefix` ("/package.Service/") are guarded."""
        self._prefix = prefix
        self._observer = Observer(prefix.strip("/"), metrics, tracer, access or AccessLog())

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
            with self._observer.observe(method, context) as observation:
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
            with self._observer.observe(method, context) as observation:
                try:
                    responses = handler.stream_stream(requests, context)
                    async with contextlib.aclosing(responses):
                        async for response in responses:
                            yield response
                except Exception as error:  # noqa: BLE001 - every error becomes a status
                    await observation.abort(error)
                # A caller who gives up between two messages looks like one who has no more.
                gone = context.cancelled()
                observation.code = grpc.StatusCode.CANCELLED if gone else grpc.StatusCode.OK

        return guarded


def _decode(message: bytes, handler: Handler) -> Any:
    # Generated servicers deserialize by a class method of the request's class.
    check_elements(message, handler.request_deserializer.__self__.DESCRIPTOR)
    try:
        return handler.request_deserializer(message)
    except DecodeError as error:
        raise InputError(f"expected a message of the contract, got other bytes: {error}") from error


async def _decode_all(messages: AsyncIterator[bytes], handler: Handler) -> AsyncIterator[Any]:
    async for message in messages:
        yield _decode(message, handler)
