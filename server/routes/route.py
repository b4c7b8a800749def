"""One route: how its calls are served."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc

from server.counted import Deadline as HasDeadline
from server.metrics import RouteMetrics
from server.routes.contracts import resolve
from server.routes.descriptors import MethodType, MethodTypes
from server.routes.judging import Passed, RequestJudge, StoppedError
from server.routes.proxy import Deadline, Proxy
from server.routes.settings import RouteSettings
from utility_gate.errors import ConfigError, TooLateError
from utility_gate.streams import to_async
from utility_gate.types import Verdict

Handler = Any
"""grpc's RpcMethodHandler, which has no public type of its own for aio."""

_MOST_TOLD = 64
"""Verdicts of a stream that its caller is told of at the end."""


class JudgedRoute:
    """Calls of one method, whose images are judged first."""

    def __init__(
        self, settings: RouteSettings, proxy: Proxy, judge: RequestJudge, metrics: RouteMetrics
    ) -> None:
        self.settings, self.judge = settings, judge
        self._proxy, self._metrics = proxy, metrics
        self._type: MethodType | None = None  # known when `judge.field` is

    def know(self, types: MethodTypes) -> None:
        """What the upstream's methods take; if the settings do not fit, calls are answered so."""
        try:
            self._type, self.judge.field = resolve(self.settings, types)
        except ConfigError as error:
            self.judge.lose(str(error))

    @property
    def ready(self) -> bool:
        """Whether calls could be forwarded."""
        return self.judge.serves and self._proxy.upstream.usable

    @property
    def handler(self) -> Handler:
        """Serves one call as the method is known now."""
        if self.judge.field is None or self._type is None or self._type.streams:
            return grpc.stream_stream_rpc_method_handler(self._stream)
        return grpc.unary_unary_rpc_method_handler(self._unary)

    async def _unary(self, request: bytes, context: Any) -> bytes:
        deadline = Deadline(context, self.settings.timeout)
        # 1. Nothing is judged for a pipeline that is not there.
        self.judge.ready()
        await self._proxy.upstream.ready(deadline.time_remaining())
        # 2. Not useful: the pipeline hears nothing of it.
        passed = await self._check(request, deadline)
        # 3. Useful: the bytes as they came.
        settings = self.settings
        return await self._proxy.unary(
            settings.path, settings.method, passed.request, passed.verdicts, deadline, context
        )

    async def _stream(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        known = self._type if self.judge.field is not None else None
        one = known is not None and not known.streams_requests
        # A stream of requests lasts as long as its caller likes.
        deadline = Deadline(context, self.settings.timeout if one else None)
        self.judge.ready()
        await self._proxy.upstream.ready(deadline.time_remaining())
        verdicts: list[Verdict] = []
        judged = self._each(requests, deadline, verdicts)
        if one:  # judged before the pipeline hears of the call; no more than one is taken
            async with self._in_time(deadline):
                first = await anext(judged, None)
            judged = to_async([] if first is None else [first])
        path, method = self.settings.path, self.settings.method
        answers = self._proxy.stream(path, method, judged, verdicts, deadline, context)
        async with contextlib.aclosing(answers):
            async for answer in answers:
                yield answer

    async def _each(
        self, requests: AsyncIterator[bytes], deadline: HasDeadline, verdicts: list[Verdict]
    ) -> AsyncIterator[bytes]:
        async for request in requests:
            passed = await self._check(request, deadline)
            verdicts += passed.verdicts[: max(0, _MOST_TOLD - len(verdicts))]
            yield passed.request

    async def _check(self, request: bytes, deadline: HasDeadline) -> Passed:
        try:
            async with self._in_time(deadline):
                passed = await self.judge.check(request, deadline)
        except StoppedError:
            self._metrics.calls.labels(self.settings.method, "stopped").inc()
            raise
        self._metrics.calls.labels(self.settings.method, passed.outcome).inc()
        return passed

    @contextlib.asynccontextmanager
    async def _in_time(self, deadline: HasDeadline) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(deadline.time_remaining()):
                yield
        except TimeoutError as error:
            raise TooLateError(
                f"expected the image to be judged within {self.settings.timeout:g} s, the route's "
                "timeout; try again later"
            ) from error


class PassingRoute:
    """Calls of one method, or of all that have no other route, that pass unjudged."""

    def __init__(
        self, proxy: Proxy, metrics: RouteMetrics, require_ready: Callable[[], object]
    ) -> None:
        """`require_ready` raises if the gate takes no new call."""
        self._proxy, self._metrics, self._require_ready = proxy, metrics, require_ready

    @property
    def upstream(self) -> str:
        """The name of where it leads."""
        return self._proxy.upstream.name

    @property
    def ready(self) -> bool:
        """Whether calls could be forwarded."""
        return self._proxy.upstream.usable

    def handler(self, path: str, label: str, known: MethodType | None) -> Handler:
        """Serves one call; without its type as a stream, which any call is. `label` is its method's
        name in the metrics."""

        async def unary(request: bytes, context: Any) -> bytes:
            self._require_ready()
            self._metrics.calls.labels(label, "unjudged").inc()
            return await self._proxy.unary(
                path, label, request, (), Deadline(context, None), context
            )

        async def stream(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
            self._require_ready()
            self._metrics.calls.labels(label, "unjudged").inc()
            deadline = Deadline(context, None)
            answers = self._proxy.stream(path, label, requests, (), deadline, context)
            async with contextlib.aclosing(answers):
                async for answer in answers:
                    yield answer

        if known is not None and not known.streams:
            return grpc.unary_unary_rpc_method_handler(unary)
        return grpc.stream_stream_rpc_method_handler(stream)
