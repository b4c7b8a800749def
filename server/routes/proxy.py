"""Calls made to a pipeline as its callers made them: the same bytes, both ways."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Collection
from typing import Any

import grpc

from server.metrics import RouteMetrics
from server.routes.address import Address
from server.routes.metadata import Metadata, forwarded, notes, passing
from server.routes.status import StatusWatch
from server.routes.upstream import Call, Upstream
from serving import request_context
from serving.errors import AnsweredError, given_up
from serving.request_context import ID_KEY
from serving.tracing import Tracer
from utility_gate.types import Verdict


class Deadline:
    """A call's time: its caller's, and `seconds` at most."""

    def __init__(self, context: Any, seconds: float | None) -> None:
        self._context = context
        self._ends = None if seconds is None else time.monotonic() + seconds

    def time_remaining(self) -> float | None:
        """Seconds; None if there is no deadline."""
        left: float | None = self._context.time_remaining()
        if self._ends is None:
            return left
        own = self._ends - time.monotonic()
        return own if left is None else min(own, left)


class Proxy:
    """Forwards calls to one upstream."""

    def __init__(
        self,
        upstream: Upstream,
        metrics: RouteMetrics,
        tracer: Tracer,
        *,
        keyed: bool,
        fair_seconds: float = 5.0,
    ) -> None:
        """`keyed`: whether callers' `authorization` is the gate's own key. A pipeline that does not
        answer within `fair_seconds` is to blame for it, however slow it is otherwise."""
        self.upstream = upstream
        self._metrics, self._tracer = metrics, tracer
        self._with_authorization = not keyed or upstream.settings.forward_authorization
        self._fair_seconds = fair_seconds

    async def unary(
        self,
        path: str,
        method: str,
        request: bytes,
        verdicts: Collection[Verdict],
        deadline: Deadline,
        context: Any,
    ) -> bytes:
        """The answer to one request. A call that surely did not leave goes to another address.
        `method` is what the method at `path` is called in the metrics.

        Raises:
            AnsweredError: with the pipeline's status.
            ServiceError: if it is not available, or too many calls are under way.
        """
        told = notes(tuple(verdicts))
        tried: list[Address] = []
        while True:
            left = deadline.time_remaining()
            with self._tracer.span("forward"), await self._begin(method, left, tried) as call:
                make: Any = call.channel.unary_unary(path)
                pending = make(request, metadata=self._metadata(context, told), timeout=left)
                try:
                    response: bytes = await pending
                except grpc.aio.AioRpcError as error:
                    call.code = error.code()
                    if not call.address.was_not_sent(error):
                        await _pass_initial(pending, context)
                        raise self._answer(call, error, told) from error
                    tried.append(call.address)
                    if len(tried) == len(self.upstream.addresses):
                        raise self.upstream.unavailable() from error
                    self._metrics.retried.labels(self.upstream.name).inc()
                    continue
                except asyncio.CancelledError:
                    self._given_up(call, pending, deadline)
                    raise
                call.code = grpc.StatusCode.OK
                await _pass_initial(pending, context)
                _pass_trailers(await pending.trailing_metadata(), told, context)
                return response

    async def stream(
        self,
        path: str,
        method: str,
        requests: AsyncIterator[bytes],
        verdicts: Collection[Verdict],
        deadline: Deadline,
        context: Any,
    ) -> AsyncGenerator[bytes, None]:
        """The answers to a stream of requests, or to one. The next request is taken when the
        pipeline has room for it, the next answer when the caller has. `verdicts` may grow
        meanwhile: the pipeline is told of those that there are now, the caller of all.

        Raises:
            Exception: what `requests` raise, and what `unary` does.
        """
        left = deadline.time_remaining()
        with await self._begin(method, left) as call:
            call.streams = True
            told = notes(tuple(verdicts))
            make: Any = call.channel.stream_stream(path)
            pending = make(metadata=self._metadata(context, told), timeout=left)
            status = StatusWatch(pending)
            sending = asyncio.ensure_future(_send(requests, pending))
            try:
                await _pass_initial(pending, context)
                try:
                    async for response in pending:
                        call.answers()
                        yield response
                except grpc.aio.AioRpcError:
                    pass  # perhaps not the pipeline's own
                ended = await status.get()
                call.code, told = ended.code(), notes(tuple(verdicts))
                if call.code is not grpc.StatusCode.OK:
                    raise self._answer(call, ended, told)
                _pass_trailers(ended.trailing_metadata(), told, context)
            except asyncio.CancelledError:
                if (refused := _refusal(sending)) is not None:
                    raise refused from None
                self._given_up(call, pending, deadline)
                raise
            finally:
                sending.cancel()
                pending.cancel()
                await asyncio.wait({sending})
                _refusal(sending)  # retrieved, or asyncio complains

    async def _begin(
        self, method: str, left: float | None, beside: Collection[Address] = ()
    ) -> Call:
        call = await self.upstream.begin(method, left, beside)
        call.fair = self.upstream.is_fair(method, left, self._fair_seconds)
        return call

    def _metadata(self, context: Any, told: Metadata) -> Metadata:
        return forwarded(
            context.invocation_metadata(),
            self.upstream.added,
            told,
            (*_request_id(), *self._tracer.headers()),
            with_authorization=self._with_authorization,
        )

    def _answer(self, call: Call, error: grpc.aio.AioRpcError, told: Metadata) -> Exception:
        """What the caller is told of a call that failed."""
        if call.address.is_local(error):  # gRPC's own words name addresses
            return self.upstream.unavailable()
        trailers = (*passing(error.trailing_metadata()), *told)
        return AnsweredError(error.code(), error.details() or "", trailers)

    def _given_up(self, call: Call, pending: Any, deadline: Deadline) -> None:
        """A call was cancelled: by its caller, by its deadline, or because our connection was
        closed."""
        call.code = given_up(deadline.time_remaining())
        # Whoever cancels shortly before a short deadline has not waited for it.
        call.fair = self.upstream.is_fair(call.method, call.seconds, self._fair_seconds)
        task = asyncio.current_task()
        if pending.cancelled() and task is not None and not task.cancelling():
            raise self.upstream.unavailable() from None


async def _send(requests: AsyncIterator[bytes], pending: Any) -> None:
    """All requests; what they raise ends the call."""
    try:
        async for request in requests:
            await pending.write(request)
        await pending.done_writing()
    except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
        pass  # the call is over; whoever reads its answers learns how it ended
    except Exception:
        pending.cancel()
        raise


def _refusal(sending: asyncio.Future[None]) -> BaseException | None:
    """Why no further request was sent, if that was an error."""
    return sending.exception() if sending.done() and not sending.cancelled() else None


async def _pass_initial(pending: Any, context: Any) -> None:
    """Tell the caller at once what the pipeline tells before its answer."""
    metadata = passing(await pending.initial_metadata())
    if metadata or not pending.done():
        await context.send_initial_metadata(metadata)


def _pass_trailers(trailers: Any, told: Metadata, context: Any) -> None:
    context.set_trailing_metadata((*passing(trailers), *told, *_request_id()))


def _request_id() -> Metadata:
    request = request_context.current()
    return () if request is None else ((ID_KEY, request.request_id),)
