"""`RequireUseful`: a pipeline's server on threads lets only useful images in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import grpc

from utility_gate.client import GateClient
from utility_gate.interceptors.handlers import (
    Handler,
    JudgedContext,
    behaviour_of,
    with_behaviour,
)
from utility_gate.interceptors.refusals import to_refusal
from utility_gate.interceptors.rules import Judging, within


class RequireUseful(Judging[GateClient], grpc.ServerInterceptor):
    """Judges the image of each request before the handler runs; `Rules` explains the options.

    The caller of the pipeline is answered

    - FAILED_PRECONDITION with `google.rpc.PreconditionFailure` (type UTILITY) and ErrorInfo for an
      image that is not useful;
    - INVALID_ARGUMENT with `google.rpc.BadRequest` for bytes that are no image;
    - UNAVAILABLE with `google.rpc.RetryInfo` when the gate is in trouble, unless `gate` was made
      with `on_failure="open"`;
    - INTERNAL when the check is set up wrongly (a field that is not there, a denied key).

    In a stream of requests each is judged as the handler takes it, and the first that is refused
    ends the call. The call's own deadline bounds the gate. Put it behind interceptors that refuse
    callers, and before those that do the pipeline's work.
    """

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Handler],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """Put the gate before a method's handler."""
        handler, method = continuation(handler_call_details), handler_call_details.method
        if handler is None or not self._rules.covers(method):
            return handler
        inner = behaviour_of(handler)

        def judged(request: Any, context: Any) -> Any:
            context = JudgedContext(context)
            if handler.request_streaming:
                return inner(self._each(method, request, context), context)
            self._check(method, request, context)
            return inner(request, context)

        return with_behaviour(handler, judged)

    def _each(self, method: str, requests: Iterator[Any], context: JudgedContext) -> Iterator[Any]:
        for request in requests:
            self._check(method, request, context)
            yield request

    def _check(self, method: str, request: Any, context: JudgedContext) -> None:
        try:
            image = self._rules.image(method, request)
            if image is None:
                return
            seconds = within(self._gate.timeout, context.time_remaining())
            # Whoever sets short deadlines must not get images past a gate that fails open.
            verdict = self._gate.assess(
                image,
                task=self._rules.task,
                timeout=seconds,
                hurried=seconds < self._gate.timeout,
            )
            self._rules.require(verdict, context.time_remaining())
        except Exception as error:  # noqa: BLE001 - whatever it is, the image was not let through
            refusal = to_refusal(error, self._rules.field)
            context.inner.set_trailing_metadata(refusal.trailers)
            context.abort(refusal.code, refusal.message)
        context.note(verdict)
