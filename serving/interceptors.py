"""Around every RPC of a service: errors become status codes, and it is observed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from serving.access import AccessLog
from serving.auth import split_path
from serving.budget import check_elements
from serving.metrics import ServiceMetrics
from serving.observation import Observer
from serving.tracing import NO_TRACER, Tracer
from utility_gate.errors import InputError

_CANCELLATION = 0.02
"""Seconds that a stream's end waits for the news that its caller gave it up."""

Handler = Any
"""grpc's RpcMethodHandler, which has no public type of its own for aio."""


class GuardInterceptor(grpc.aio.ServerInterceptor):
    """Maps what a servicer raises to a status with details, and observes each RPC once."""

    def __init__(
        self,
        metrics: ServiceMetrics,
        services: Collection[str],
        tracer: Tracer = NO_TRACER,
        access: AccessLog | None = None,
        label: Callable[[str, str], str] = lambda _, method: method,
    ) -> None:
        """Only methods of `services` ("package.Service") are guarded. `label` says what a service's
        method is called in metrics, logs and spans; callers must not be able to make up new ones.
        """
        self._services = services
        self._label = label
        self._observer = Observer(metrics, tracer, access or AccessLog())

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """Wrap the handler of a guarded method."""
        handler = await continuation(handler_call_details)
        service, method = split_path(handler_call_details.method)
        if handler is None or service not in self._services:
            return handler
        method = self._label(service, method)
        # Messages arrive undecoded, so that one that does not decode is answered like any error.
        if handler.response_streaming:
            return grpc.stream_stream_rpc_method_handler(
                self._guard_stream(service, method, handler),
                response_serializer=handler.response_serializer,
            )
        return grpc.unary_unary_rpc_method_handler(
            self._guard_unary(service, method, handler),
            response_serializer=handler.response_serializer,
        )

    def _guard_unary(self, service: str, method: str, handler: Handler) -> Any:
        async def guarded(message: bytes, context: Any) -> Any:
            with self._observer.observe(service, method, context) as observation:
                try:
                    request = _decode(message, handler)
                    response = await handler.unary_unary(request, context)
                except Exception as error:  # noqa: BLE001 - every error becomes a status
                    await observation.abort(error)
                observation.code = grpc.StatusCode.OK
                return response

        return guarded

    def _guard_stream(self, service: str, method: str, handler: Handler) -> Any:
        async def guarded(messages: AsyncIterator[bytes], context: Any) -> AsyncIterator[Any]:
            requests = _decode_all(messages, handler)
            with self._observer.observe(service, method, context) as observation:
                try:
                    responses = handler.stream_stream(requests, context)
                    async with contextlib.aclosing(responses):
                        async for response in responses:
                            yield response
                except Exception as error:  # noqa: BLE001 - every error becomes a status
                    await observation.abort(error)
                # A caller who gives up between two messages looks like one who has no more, until
                # the cancellation arrives.
                await asyncio.sleep(_CANCELLATION)
                gone = context.cancelled()
                observation.code = grpc.StatusCode.CANCELLED if gone else grpc.StatusCode.OK

        return guarded


def _decode(message: bytes, handler: Handler) -> Any:
    if handler.request_deserializer is None:  # it takes messages as they are
        return message
    # Generated servicers deserialize by a class method of the request's class.
    check_elements(message, handler.request_deserializer.__self__.DESCRIPTOR)
    try:
        return handler.request_deserializer(message)
    except DecodeError as error:
        raise InputError(f"expected a message of the contract, got other bytes: {error}") from error


async def _decode_all(messages: AsyncIterator[bytes], handler: Handler) -> AsyncIterator[Any]:
    async for message in messages:
        yield _decode(message, handler)
