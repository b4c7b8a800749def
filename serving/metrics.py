"""The metrics that every service has. Seconds and bytes are the units, as Prometheus asks."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_BYTES = tuple(float(1024 * 4**power) for power in range(2, 9))


class ServiceMetrics:
    """The metrics of one service, in a registry of its own. A subclass adds what only it has."""

    def __init__(self, prefix: str) -> None:
        """`prefix` begins every name: "utility_gate"."""
        self.prefix = prefix
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            f"{prefix}_requests_total",
            "Finished RPCs by method and gRPC status code.",
            ["method", "code"],
            registry=registry,
        )
        self.request_seconds = Histogram(
            f"{prefix}_request_duration_seconds",
            "Time from an RPC's arrival at its handler to its end.",
            ["method"],
            buckets=SECONDS,
            registry=registry,
        )
        self.in_flight = Gauge(
            f"{prefix}_images_in_flight",
            "Images accepted and not yet answered, waiting ones included.",
            registry=registry,
        )
        self.waiting = Gauge(
            f"{prefix}_images_waiting", "Images that wait for a worker.", registry=registry
        )
        self.queue_seconds = Histogram(
            f"{prefix}_queue_duration_seconds",
            "Time in line, of images that found no free worker; those that left it included.",
            buckets=SECONDS,
            registry=registry,
        )
        self.shed = Counter(
            f"{prefix}_shed_total",
            "Images refused because too many waited.",
            registry=registry,
        )
        self.too_late = Counter(
            f"{prefix}_too_late_total",
            "Images refused or dropped because their deadline could not be met.",
            registry=registry,
        )
        self.unauthenticated = Counter(
            f"{prefix}_unauthenticated_total",
            "Calls without a valid API key, and images of streams whose key was taken away.",
            registry=registry,
        )
        self.rate_limited = Counter(
            f"{prefix}_rate_limited_total",
            "Images refused because their API key was over its limit, by the key's name.",
            ["key"],
            registry=registry,
        )
        self.rejected_inputs = Counter(
            f"{prefix}_rejected_inputs_total",
            "Images that could not be used, by the error's name.",
            ["error"],
            registry=registry,
        )
        self.decode_seconds = Histogram(
            f"{prefix}_decode_duration_seconds",
            "Time to decode and resize one image.",
            buckets=SECONDS,
            registry=registry,
        )
        self.image_bytes = Histogram(
            f"{prefix}_image_bytes",
            "Size of encoded images that were used.",
            buckets=_BYTES,
            registry=registry,
        )
        self.reloads = Counter(
            f"{prefix}_reloads_total",
            "Reloads of what is served, done or failed (the old state goes on).",
            ["outcome"],
            registry=registry,
        )
        self.ready = Gauge(f"{prefix}_ready", "1 while it serves, else 0.", registry=registry)
