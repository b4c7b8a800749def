"""Every metric of the gate, in one list. Seconds and bytes are the units, as Prometheus asks."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_BYTES = tuple(float(1024 * 4**power) for power in range(2, 9))
_TENTHS = tuple(round(0.1 * step, 1) for step in range(1, 11))


class GateMetrics:
    """The metrics of one gate, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "utility_gate_requests_total",
            "Finished RPCs by method and gRPC status code.",
            ["method", "code"],
            registry=registry,
        )
        self.request_seconds = Histogram(
            "utility_gate_request_duration_seconds",
            "Time from an RPC's arrival at its handler to its end.",
            ["method"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.images = Counter(
            "utility_gate_images_total",
            "Images by method and by the status code that each was answered with, in a stream too.",
            ["method", "code"],
            registry=registry,
        )
        self.in_flight = Gauge(
            "utility_gate_images_in_flight",
            "Images accepted and not yet answered, waiting ones included.",
            registry=registry,
        )
        self.waiting = Gauge(
            "utility_gate_images_waiting", "Images that wait for a worker.", registry=registry
        )
        self.queue_seconds = Histogram(
            "utility_gate_queue_duration_seconds",
            "Time in line, of images that found no free worker; those that left it included.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.shed = Counter(
            "utility_gate_shed_total",
            "Images refused because too many waited.",
            registry=registry,
        )
        self.too_late = Counter(
            "utility_gate_too_late_total",
            "Images refused or dropped because their deadline could not be met.",
            registry=registry,
        )
        self.unauthenticated = Counter(
            "utility_gate_unauthenticated_total",
            "Calls without a valid API key, and images of streams whose key was taken away.",
            registry=registry,
        )
        self.rate_limited = Counter(
            "utility_gate_rate_limited_total",
            "Images refused because their API key was over its limit, by the key's name.",
            ["key"],
            registry=registry,
        )
        self.verdicts = Counter(
            "utility_gate_verdicts_total",
            "Verdicts by task, mode, decision (what callers were told), judgement (by utility and "
            "thresholds; NONE if the image was not judged) and predictor version.",
            ["task", "mode", "decision", "judgement", "predictor_version"],
            registry=registry,
        )
        self.reasons = Counter(
            "utility_gate_reasons_total",
            "Reasons given in verdicts.",
            ["task", "kind"],
            registry=registry,
        )
        self.rejected_inputs = Counter(
            "utility_gate_rejected_inputs_total",
            "Images that could not be judged, by the error's name.",
            ["error"],
            registry=registry,
        )
        self.utility = Histogram(
            "utility_gate_utility",
            "Predicted utility.",
            ["task"],
            buckets=_TENTHS,
            registry=registry,
        )
        self.decode_seconds = Histogram(
            "utility_gate_decode_duration_seconds",
            "Time to decode and resize one image.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.infer_seconds = Histogram(
            "utility_gate_infer_duration_seconds",
            "Time of the predictor's network on one image.",
            ["task"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.image_bytes = Histogram(
            "utility_gate_image_bytes",
            "Size of encoded images that were judged.",
            buckets=_BYTES,
            registry=registry,
        )
        self.reloads = Counter(
            "utility_gate_reloads_total",
            "Reloads of the predictors, done or failed (the old ones go on).",
            ["outcome"],
            registry=registry,
        )
        self.canary_verdicts = Counter(
            "utility_gate_canary_verdicts_total",
            "Images that a canary judged too, by what the serving predictor said of them.",
            ["task", "canary_version", "judgement", "canary_judgement"],
            registry=registry,
        )
        self.canary_difference = Histogram(
            "utility_gate_canary_utility_difference",
            "Absolute difference between a canary's utility and the serving predictor's.",
            ["task", "canary_version"],
            buckets=_TENTHS,
            registry=registry,
        )
        self.canary_failures = Counter(
            "utility_gate_canary_failures_total",
            "Images on which a canary failed.",
            ["task", "canary_version"],
            registry=registry,
        )
        self.canary_skipped = Counter(
            "utility_gate_canary_skipped_total",
            "Images that a canary did not judge because too many waited for it.",
            registry=registry,
        )
        self.ready = Gauge(
            "utility_gate_ready", "1 while the gate serves, else 0.", registry=registry
        )
        self.predictor = Gauge(
            "utility_gate_predictor_info",
            "1 for each loaded predictor.",
            ["task", "name", "version", "digest"],
            registry=registry,
        )
