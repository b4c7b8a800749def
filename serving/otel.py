"""Spans by OpenTelemetry, sent by OTLP over gRPC. Imported only when that is configured.

Sampling, batching, headers and certificates are the SDK's own variables (OTEL_TRACES_SAMPLER,
OTEL_BSP_*, OTEL_EXPORTER_OTLP_*).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry import context as current_context
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from serving.tracing import Attributes, Metadata, Span
from utility_gate import __version__
from utility_gate.errors import ConfigError

_PARENT_KEYS = ("traceparent", "tracestate")

_SERVER_ERRORS = frozenset(
    {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
)
"""Codes that mark a server's span as an error, by OpenTelemetry's conventions for gRPC; of the
others the caller is to blame."""


class OtelSpan:
    """One span of the SDK."""

    def __init__(self, span: trace.Span) -> None:
        self._span = span
        self._ending = threading.Lock()

    @property
    def trace_id(self) -> str:
        """32 hexadecimal digits."""
        return trace.format_trace_id(self._span.get_span_context().trace_id)

    def annotate(self, attributes: Attributes) -> None:
        """Add attributes."""
        self._span.set_attributes(attributes)

    def end(self, code: str = "") -> None:
        """End it once, whoever comes first."""
        if not self._ending.acquire(blocking=False):
            return
        if code:
            self._span.set_attribute("rpc.response.status_code", code)
        if code in _SERVER_ERRORS:
            self._span.set_attribute("error.type", code)
            self._span.set_status(trace.StatusCode.ERROR, code)
        self._span.end()


class OtelTracer:
    """Spans go into a bounded queue and from there, by a thread of the SDK, to the collector; a
    collector that is slow or gone costs spans and no request anything."""

    enabled = True

    def __init__(self, endpoint: str | None, service: str = "utility-gate") -> None:
        """`endpoint` None: as OTEL_EXPORTER_OTLP_ENDPOINT says, or localhost.

        Raises:
            ConfigError: if the SDK does not accept its variables.
        """
        try:
            exporter = OTLPSpanExporter(endpoint=endpoint)
            # Ended by us: at exit it would wait for a dead collector.
            self._provider = TracerProvider(resource=_resource(service), shutdown_on_exit=False)
            self._provider.add_span_processor(BatchSpanProcessor(exporter))
        except Exception as error:  # the SDK raises what it likes for a bad variable
            raise ConfigError(f"traces: OpenTelemetry refuses its settings: {error}") from error
        self._tracer = self._provider.get_tracer("utility_gate", __version__)
        self._propagator = TraceContextTextMapPropagator()

    def rpc(self, method: str, metadata: Metadata, attributes: Attributes) -> Span:
        """A server span below the caller's `traceparent`, if there is a sound one."""
        parent = {key: value for key, value in metadata if key in _PARENT_KEYS}
        above = self._propagator.extract(parent)
        told = {"rpc.system.name": "grpc", "rpc.method": method, **attributes}
        span = self._tracer.start_span(method, above, trace.SpanKind.SERVER, attributes=told)
        # Never detached: gRPC runs every RPC in a task of its own, whose context ends with it.
        current_context.attach(trace.set_span_in_context(span, above))
        return OtelSpan(span)

    def begin(self, name: str) -> Span:
        """A span below the current one."""
        return OtelSpan(self._tracer.start_span(name))

    @contextmanager
    def span(self, name: str) -> Iterator[None]:
        """A span around a block; an error is named by its type, and told in the log alone."""
        with self._tracer.start_as_current_span(
            name, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield
            except Exception as error:
                kind = type(error).__name__
                span.set_attribute("error.type", kind)
                span.set_status(trace.StatusCode.ERROR, kind)
                raise

    def annotate(self, attributes: Attributes) -> None:
        """Add attributes to the current span."""
        trace.get_current_span().set_attributes(attributes)

    def headers(self) -> tuple[tuple[str, str], ...]:
        """A `traceparent`, and a `tracestate` if there is one."""
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier)
        return tuple(carrier.items())

    def close(self, seconds: float) -> None:
        """Deliver what is left, for at most `seconds`; a collector that hangs is left hanging."""
        closing = threading.Thread(target=self._provider.shutdown, name="traces-end", daemon=True)
        closing.start()
        closing.join(seconds)


def _resource(service: str) -> Resource:
    """What OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say, or our own name, `service`."""
    resource = Resource.create()
    if str(resource.attributes.get(SERVICE_NAME, "")).startswith("unknown_service"):
        resource = resource.merge(Resource({SERVICE_NAME: service}))
    return Resource({SERVICE_VERSION: __version__}).merge(resource)
