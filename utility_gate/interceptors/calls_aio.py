"""`async_gate_calls`: the same for a pipeline's caller on asyncio."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection, Generator
from typing import Any

import grpc

from utility_gate.client import AsyncGateClient
from utility_gate.interceptors.rules import ImageField, Judging, Notes, Review, notes, within
from utility_gate.streams import to_async


def async_gate_calls(
    gate: AsyncGateClient,
    *,
    image_field: ImageField,
    methods: Collection[str] | None = None,
    review: Review = "pass",
    task: str | None = None,
) -> list[grpc.aio.ClientInterceptor]:
    """`GateCalls` for `grpc.aio.insecure_channel(..., interceptors=...)`, which wants one
    interceptor for each kind of method.

    Raises:
        ConfigError: for options that cannot be meant.
    """
    judge = _Judge(gate, image_field=image_field, methods=methods, review=review, task=task)
    return [_UnaryUnary(judge), _UnaryStream(judge), _StreamUnary(judge), _StreamStream(judge)]


class _Judge(Judging[AsyncGateClient]):
    """What the four share."""

    async def unary(self, continuation: Callable[..., Any], details: Any, request: Any) -> Any:
        """Send a request that passes."""
        method = _name(details)
        if self._rules.covers(method):
            started = time.monotonic()
            told = await self._check(method, request, details.timeout)
            details = _after(details, told, time.monotonic() - started)
        return await continuation(details, request)

    async def streamed(
        self, continuation: Callable[..., Any], details: Any, requests: Any
    ) -> tuple[Any, list[Exception]]:
        """The call, and a place for what stops it."""
        method = _name(details)
        stopped: list[Exception] = []
        if not self._rules.covers(method):
            return await continuation(details, requests), stopped
        ends = None if details.timeout is None else time.monotonic() + details.timeout

        async def judged() -> AsyncIterator[Any]:
            async for request in to_async(requests):
                try:
                    left = None if ends is None else ends - time.monotonic()
                    await self._check(method, request, left)
                except Exception as error:  # gRPC would turn it into a cancellation
                    stopped.append(error)
                    raise
                yield request

        return await continuation(details, judged()), stopped

    async def _check(self, method: str, request: Any, left: float | None) -> Notes:
        image = self._rules.image(method, request)
        if image is None:
            return ()
        seconds = within(self._gate.timeout, left)
        verdict = await self._gate.assess(image, task=self._rules.task, timeout=seconds)
        self._rules.require(verdict)
        return notes(verdict)


class _UnaryUnary(grpc.aio.UnaryUnaryClientInterceptor):
    def __init__(self, judge: _Judge) -> None:
        self._judge = judge

    async def intercept_unary_unary(
        self, continuation: Callable[..., Any], client_call_details: Any, request: Any
    ) -> Any:
        return await self._judge.unary(continuation, client_call_details, request)


class _UnaryStream(grpc.aio.UnaryStreamClientInterceptor):
    def __init__(self, judge: _Judge) -> None:
        self._judge = judge

    async def intercept_unary_stream(
        self, continuation: Callable[..., Any], client_call_details: Any, request: Any
    ) -> Any:
        return await self._judge.unary(continuation, client_call_details, request)


class _StreamUnary(grpc.aio.StreamUnaryClientInterceptor):
    def __init__(self, judge: _Judge) -> None:
        self._judge = judge

    async def intercept_stream_unary(
        self, continuation: Callable[..., Any], client_call_details: Any, request_iterator: Any
    ) -> Any:
        judged = await self._judge.streamed(continuation, client_call_details, request_iterator)
        return _StreamedCall(*judged)


class _StreamStream(grpc.aio.StreamStreamClientInterceptor):
    def __init__(self, judge: _Judge) -> None:
        self._judge = judge

    async def intercept_stream_stream(
        self, continuation: Callable[..., Any], client_call_details: Any, request_iterator: Any
    ) -> Any:
        call, stopped = await self._judge.streamed(
            continuation, client_call_details, request_iterator
        )
        return _answers(call, stopped)


class _StreamedCall:
    """A call that raises why it was stopped, in place of its cancellation."""

    def __init__(self, call: Any, stopped: list[Exception]) -> None:
        self._call, self._stopped = call, stopped

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)

    def __await__(self) -> Generator[Any, None, Any]:
        return self._result().__await__()

    async def _result(self) -> Any:
        try:
            return await self._call
        except (grpc.RpcError, asyncio.CancelledError):
            if self._stopped:
                raise self._stopped[0] from None
            raise


async def _answers(call: Any, stopped: list[Exception]) -> AsyncIterator[Any]:
    try:
        async for answer in call:
            yield answer
    except (grpc.RpcError, asyncio.CancelledError):
        if stopped:
            raise stopped[0] from None
        raise


def _name(details: Any) -> str:
    method = details.method
    return method.decode() if isinstance(method, bytes) else str(method)


def _after(details: Any, told: Notes, elapsed: float) -> Any:
    metadata = grpc.aio.Metadata(*(details.metadata or ()), *told)
    left = None if details.timeout is None else max(0.0, details.timeout - elapsed)
    return details._replace(metadata=metadata, timeout=left)
