"""Spans, for those who collect them: what the server asks of a tracer, and the one that does
nothing. Imports nothing of OpenTelemetry until an exporter is configured."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol, TypeVar

from utility_gate.errors import ConfigError

log = logging.getLogger(__name__)

Result = TypeVar("Result")

FLUSH_SECONDS = 2.0
"""How long the end of a service waits for spans that are not delivered yet."""

Attributes = Mapping[str, str | int | float | bool]
Metadata = Iterable[tuple[str, str | bytes]]


class Span(Protocol):
    """One span that is under way."""

    @property
    def trace_id(self) -> str:
        """32 hexadecimal digits; "" if nothing is traced."""

    def annotate(self, attributes: Attributes) -> None:
        """Add attributes."""

    def end(self, code: str = "") -> None:
        """End it, from any thread; a second time does nothing. `code` is an RPC's status."""


class Tracer(Protocol):
    """Makes spans. "Current" is the innermost span of the running task or thread."""

    enabled: bool

    def rpc(self, method: str, metadata: Metadata, attributes: Attributes) -> Span:
        """The span of an RPC, "package.Service/Method", below the caller's if the metadata name
        one; current to the end of the running task."""

    def begin(self, name: str) -> Span:
        """A span below the current one, which it does not replace; whoever has it ends it."""

    def span(self, name: str) -> AbstractContextManager[None]:
        """A span below the current one, which it replaces for the `with` block."""

    def annotate(self, attributes: Attributes) -> None:
        """Add attributes to the current span."""

    def headers(self) -> tuple[tuple[str, str], ...]:
        """The metadata that put an RPC to somebody else below the current span."""

    def close(self, seconds: float) -> None:
        """Deliver what is left, for at most `seconds`."""


class _NoSpan:
    trace_id = ""

    def annotate(self, attributes: Attributes) -> None:
        pass

    def end(self, code: str = "") -> None:
        pass


class NoTracer:
    """Makes no spans."""

    enabled = False
    _span = _NoSpan()
    _block = nullcontext()

    def rpc(self, method: str, metadata: Metadata, attributes: Attributes) -> Span:  # noqa: ARG002
        """No span."""
        return self._span

    def begin(self, name: str) -> Span:  # noqa: ARG002
        """No span."""
        return self._span

    def span(self, name: str) -> AbstractContextManager[None]:  # noqa: ARG002
        """No span."""
        return self._block

    def annotate(self, attributes: Attributes) -> None:
        """Nothing."""

    def headers(self) -> tuple[tuple[str, str], ...]:
        """None."""
        return ()

    def close(self, seconds: float) -> None:
        """Nothing."""


NO_TRACER: Tracer = NoTracer()


def open_tracer(
    endpoint: str = "", environ: Mapping[str, str] = os.environ, *, service: str = "utility-gate"
) -> Tracer:
    """The tracer that `endpoint` or OpenTelemetry's standard variables ask for; `service` is whose
    spans they are, unless those variables name it.

    Raises:
        ConfigError: if they ask for what cannot be had, or for packages that are not installed.
    """
    exporter = environ.get("OTEL_TRACES_EXPORTER", "").strip()
    if exporter == "none" or environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return NO_TRACER
    if exporter not in ("", "otlp"):
        raise ConfigError(f"OTEL_TRACES_EXPORTER: expected otlp or none, got {exporter!r}")
    if not (endpoint or exporter or _first(environ, "ENDPOINT")):
        return NO_TRACER
    protocol = _first(environ, "PROTOCOL") or "grpc"
    if protocol != "grpc":
        raise ConfigError(
            f"OTEL_EXPORTER_OTLP_PROTOCOL: expected grpc (collectors take it on port 4317), got "
            f"{protocol!r}"
        )
    try:
        from serving.otel import OtelTracer
    except ModuleNotFoundError as error:
        if not endpoint:
            # Platforms set these variables for whatever runs there, asked or not.
            log.warning("OpenTelemetry's variables are set, but %s is not installed: no traces",
                        error.name)  # fmt: skip
            return NO_TRACER
        raise ConfigError(
            f"traces are configured, but {error.name} is not installed; run pip install "
            "'.[trace]', or set OTEL_SDK_DISABLED=true"
        ) from error
    return OtelTracer(endpoint or None, service)


@contextmanager
def queued(tracer: Tracer, work: Callable[[], Result]) -> Iterator[Callable[[], Result]]:
    """`work` for a worker thread, with a span "queue" until one takes it or the block is left."""
    if not tracer.enabled:
        yield work
        return
    queue = tracer.begin("queue")

    def taken() -> Result:
        queue.end()
        return work()

    try:
        yield taken
    finally:
        queue.end()


def _first(environ: Mapping[str, str], name: str) -> str:
    """A setting of the OTLP exporter: the one for traces, else the one for all signals."""
    of_traces = environ.get(f"OTEL_EXPORTER_OTLP_TRACES_{name}", "").strip()
    return of_traces or environ.get(f"OTEL_EXPORTER_OTLP_{name}", "").strip()
