"""One RPC as it is seen from outside: counted, timed, traced, logged, under its request id."""

from __future__ import annotations

import asyncio
import time
import traceback
from typing import Any, cast

import grpc

from serving import request_context
from serving.access import AccessLog
from serving.auth import peer_host
from serving.errors import AnsweredError, given_up, to_status
from serving.metrics import ServiceMetrics
from serving.request_context import ID_KEY, RequestContext
from serving.tracing import Tracer


class Observer:
    """Observes RPCs for those who watch: metrics, traces, the access log."""

    def __init__(self, metrics: ServiceMetrics, tracer: Tracer, access: AccessLog) -> None:
        self.metrics = metrics
        self.tracer = tracer
        self.access = access

    def observe(self, service: str, method: str, context: Any) -> Observation:
        """A context manager around one RPC of `method` of "package.Service"; perhaps `method` names
        both already."""
        return Observation(self, service, method, context)


class Observation:
    """One RPC; a call that just vanishes was given up by its caller."""

    def __init__(self, observer: Observer, service: str, method: str, context: Any) -> None:
        self._observer, self._service, self._method = observer, service, method
        self._context = context
        self.code = grpc.StatusCode.UNKNOWN
        self._message = ""
        self._recorded = False

    def __enter__(self) -> Observation:
        self._started = time.perf_counter()
        metadata = self._context.invocation_metadata() or ()
        offered = next((value for key, value in metadata if key == ID_KEY), None)
        request_id, client = request_context.choose_id(offered), peer_host(self._context.peer())
        self._trailer = (ID_KEY, request_id)
        self._context.set_trailing_metadata((self._trailer,))
        tracer, name = self._observer.tracer, self._method
        if "/" not in name:
            name = f"{self._service}/{name}"
        attributes = {"utility_gate.request_id": request_id, "client.address": client}
        self._span = tracer.rpc(name, metadata, attributes)
        self._request = RequestContext(
            request_id, client, self._method, trace_id=self._span.trace_id
        )
        request_context.enter(self._request)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and issubclass(kind, asyncio.CancelledError | GeneratorExit):
            self.code = given_up(self._context.time_remaining())
        self._record()

    async def abort(self, error: Exception) -> None:
        """End the RPC with the error's status; raises."""
        if isinstance(error, AnsweredError):
            self.code, self._message, trailers = error.code, error.message, error.trailers
        else:
            status = to_status(error)
            self.code, self._message = status.code, status.message
            trailers = status.to_trailers(self._context.time_remaining())
        self._record()  # first: whoever has the answer may look at the metrics next
        _let_go(error)
        await self._context.abort(self.code, self._message, cast(Any, (*trailers, self._trailer)))

    def _record(self) -> None:
        if self._recorded:
            return
        self._recorded = True
        elapsed = time.perf_counter() - self._started
        metrics = self._observer.metrics
        metrics.request_seconds.labels(self._method).observe(elapsed)
        metrics.requests.labels(self._method, self.code.name).inc()
        self._span.end(self.code.name)
        # A stream that its caller gave up may be ended by a task that knows another request.
        serving = request_context.current()
        if serving is None or serving.request_id != self._request.request_id:
            request_context.enter(self._request)
        self._observer.access.record(self._method, self.code, elapsed, self._message)


def _let_go(error: BaseException | None) -> None:
    """Drop what an error's frames hold: requests, calls. gRPC keeps an aborted RPC, and with it the
    error, in a cycle until the next garbage collection."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
