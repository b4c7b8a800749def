"""`GateCalls`: a pipeline's caller on threads sends only useful images."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import grpc

from utility_gate.client import GateClient
from utility_gate.interceptors.rules import Judging, Notes, notes, within


class GateCalls(
    Judging[GateClient],
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """Judges the image of each request before it leaves; `Rules` explains the options.

    For `grpc.intercept_channel`. A call whose image is stopped raises, and the pipeline hears
    nothing of it; one that goes on carries the decision in its metadata. In a stream of requests
    each is judged as it is sent, the first that is stopped cancels the call, and reading the
    answers raises. The call's own timeout bounds gate and pipeline together.

    Calls raise, besides what the pipeline raises:
        NotUsefulError: the image was judged and stopped; its `verdict` says why.
        InputError: the image cannot be judged.
        GateError: the gate is in trouble, unless it was made with `on_failure="open"`.
        ConfigError: `image_field` does not fit the requests.
    """

    def intercept_unary_unary(
        self, continuation: Callable[..., Any], client_call_details: Any, request: Any
    ) -> Any:
        """Judge the request."""
        return self._unary(continuation, client_call_details, request)

    def intercept_unary_stream(
        self, continuation: Callable[..., Any], client_call_details: Any, request: Any
    ) -> Any:
        """Judge the request."""
        return self._unary(continuation, client_call_details, request)

    def intercept_stream_unary(
        self, continuation: Callable[..., Any], client_call_details: Any, request_iterator: Any
    ) -> Any:
        """Judge each request."""
        return self._streamed(continuation, client_call_details, request_iterator)

    def intercept_stream_stream(
        self, continuation: Callable[..., Any], client_call_details: Any, request_iterator: Any
    ) -> Any:
        """Judge each request."""
        return self._streamed(continuation, client_call_details, request_iterator)

    def _unary(self, continuation: Callable[..., Any], details: Any, request: Any) -> Any:
        if not self._rules.covers(details.method):
            return continuation(details, request)
        started = time.monotonic()
        told = self._check(details.method, request, details.timeout)
        return continuation(_after(details, told, time.monotonic() - started), request)

    def _streamed(self, continuation: Callable[..., Any], details: Any, requests: Any) -> Any:
        if not self._rules.covers(details.method):
            return continuation(details, requests)
        stopped: list[Exception] = []
        ends = None if details.timeout is None else time.monotonic() + details.timeout

        def judged() -> Iterator[Any]:
            for request in requests:
                try:
                    left = None if ends is None else ends - time.monotonic()
                    self._check(details.method, request, left)
                except Exception as error:  # gRPC would hide it
                    stopped.append(error)
                    raise
                yield request

        return _StreamedCall(continuation(details, judged()), stopped)

    def _check(self, method: str, request: Any, left: float | None) -> Notes:
        image = self._rules.image(method, request)
        if image is None:
            return ()
        seconds = within(self._gate.timeout, left)
        verdict = self._gate.assess(image, task=self._rules.task, timeout=seconds)
        self._rules.require(verdict)
        return notes(verdict)


class _Details(NamedTuple):
    """grpc's ClientCallDetails, which cannot be made from outside."""

    method: Any
    timeout: float | None
    metadata: Any
    credentials: Any
    wait_for_ready: Any
    compression: Any


def _after(details: Any, told: Notes, elapsed: float) -> Any:
    """The details of a call whose image was judged."""
    return _Details(
        details.method,
        None if details.timeout is None else max(0.0, details.timeout - elapsed),
        (*(details.metadata or ()), *told),
        details.credentials,
        getattr(details, "wait_for_ready", None),
        getattr(details, "compression", None),
    )


class _StreamedCall:
    """A call that raises why it was stopped, in place of gRPC's "Exception iterating requests!"."""

    def __init__(self, call: Any, stopped: list[Exception]) -> None:
        self._call, self._stopped = call, stopped

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        try:
            return next(self._call)
        except grpc.RpcError:
            self._raise()
            raise

    def result(self, timeout: float | None = None) -> Any:
        try:
            return self._call.result(timeout)
        except (grpc.RpcError, grpc.FutureCancelledError):
            self._raise()
            raise

    def exception(self, timeout: float | None = None) -> Any:
        error = self._call.exception(timeout)
        return self._stopped[0] if self._stopped else error

    def _raise(self) -> None:
        if self._stopped:
            raise self._stopped[0] from None
