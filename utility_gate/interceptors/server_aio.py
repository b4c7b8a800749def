"""`AsyncRequireUseful`: the same for a pipeline's server on asyncio."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc

from utility_gate.client import AsyncGateClient
from utility_gate.errors import ConfigError
from utility_gate.interceptors.handlers import (
    Handler,
    JudgedContext,
    behaviour_of,
    with_behaviour,
)
from utility_gate.interceptors.refusals import to_refusal
from utility_gate.interceptors.rules import Judging, within


class AsyncRequireUseful(Judging[AsyncGateClient], grpc.aio.ServerInterceptor):
    """`RequireUseful` for `grpc.aio.server`, with an `AsyncGateClient`.

    Handlers must be asynchronous: a method whose handler runs in a thread is answered INTERNAL if
    its requests are looked at (`methods`).
    """

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """Put the gate before a method's handler."""
        handler, method = await continuation(handler_call_details), handler_call_details.method
        if handler is None or not self._rules.covers(method):
            return handler
        inner = behaviour_of(handler)

        async def enter(request: Any, context: Any) -> tuple[Any, JudgedContext]:
            if handler.request_streaming:
                streamed = _StreamContext(context, lambda one: self._check(method, one, streamed))
                return streamed.each(request), streamed
            judged = JudgedContext(context)
            await self._check(method, request, judged)
            return request, judged

        async def answer(request: Any, context: Any) -> Any:
            return await inner(*await enter(request, context))

        async def answers(request: Any, context: Any) -> AsyncIterator[Any]:
            async with contextlib.aclosing(inner(*await enter(request, context))) as responses:
                async for response in responses:
                    yield response

        async def refuse(_: Any, context: Any) -> None:
            message = f"expected an asynchronous handler for {method}, got one for a thread"
            await self._refuse(ConfigError(f"{message}; leave it out of methods"), context)

        if inspect.isasyncgenfunction(inner):
            return with_behaviour(handler, answers)
        return with_behaviour(handler, answer if inspect.iscoroutinefunction(inner) else refuse)

    async def _check(self, method: str, request: Any, context: JudgedContext) -> None:
        try:
            image = self._rules.image(method, request)
            if image is None:
                return
            seconds = within(self._gate.timeout, context.time_remaining())
            # Whoever sets short deadlines must not get images past a gate that fails open.
            verdict = await self._gate.assess(
                image,
                task=self._rules.task,
                timeout=seconds,
                hurried=seconds < self._gate.timeout,
            )
            self._rules.require(verdict, context.time_remaining())
        except Exception as error:  # noqa: BLE001 - whatever it is, the image was not let through
            await self._refuse(error, context.inner)
        context.note(verdict)

    async def _refuse(self, error: Exception, context: Any) -> None:
        refusal = to_refusal(error, self._rules.field)
        await context.abort(refusal.code, refusal.message, refusal.trailers)


class _StreamContext(JudgedContext):
    """Judges requests on both of the ways in which a handler may take them."""

    def __init__(self, context: Any, check: Callable[[Any], Awaitable[None]]) -> None:
        super().__init__(context)
        self._check = check

    async def each(self, requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
        """The way of an iterator."""
        async for request in requests:
            await self._check(request)
            yield request

    async def read(self) -> Any:
        """The way of grpc.aio's read()."""
        request = await self.inner.read()
        if request is not grpc.aio.EOF:
            await self._check(request)
        return request
