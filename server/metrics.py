"""The metrics that only the gate has, in one list; `serving.metrics` has the others."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from serving.metrics import SECONDS, ServiceMetrics

_TENTHS = tuple(round(0.1 * step, 1) for step in range(1, 11))


class GateMetrics(ServiceMetrics):
    """The metrics of one gate, in a registry of its own."""

    def __init__(self) -> None:
        super().__init__("utility_gate")
        registry = self.registry
        self.routes = RouteMetrics(registry)
        self.images = Counter(
            "utility_gate_images_total",
            "Images by method and by the status code that each was answered with, in a stream too.",
            ["method", "code"],
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
        self.utility = Histogram(
            "utility_gate_utility",
            "Predicted utility.",
            ["task"],
            buckets=_TENTHS,
            registry=registry,
        )
        self.infer_seconds = Histogram(
            "utility_gate_infer_duration_seconds",
            "Time of the predictor's network on one image.",
            ["task"],
            buckets=SECONDS,
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
        self.predictor = Gauge(
            "utility_gate_predictor_info",
            "1 for each loaded predictor.",
            ["task", "name", "version", "digest"],
            registry=registry,
        )


class RouteMetrics:
    """The metrics of routes and of the upstreams behind them."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.calls = Counter(
            "utility_gate_route_requests_total",
            "Requests of routes by outcome: forwarded after their images were judged, stopped by "
            "what they were judged, or unjudged (forwarded unseen: no image in it, mode OFF or "
            "FALLBACK, a method that passes).",
            ["route", "outcome"],
            registry=registry,
        )
        self.codes = Counter(
            "utility_gate_upstream_calls_total",
            "Calls to upstreams by the gRPC status code that they ended with.",
            ["upstream", "code"],
            registry=registry,
        )
        self.seconds = Histogram(
            "utility_gate_upstream_duration_seconds",
            "Time from a call's start to its end at the upstream; streams are not among them.",
            ["upstream"],
            buckets=SECONDS,
            registry=registry,
        )
        self.in_flight = Gauge(
            "utility_gate_upstream_calls_in_flight",
            "Calls under way to an upstream's address.",
            ["upstream", "address"],
            registry=registry,
        )
        self.shed = Counter(
            "utility_gate_upstream_shed_total",
            "Calls refused because too many were under way to the upstream.",
            ["upstream"],
            registry=registry,
        )
        self.retried = Counter(
            "utility_gate_upstream_retried_total",
            "Calls that found no connection at one address and went to another.",
            ["upstream"],
            registry=registry,
        )
        self.usable = Gauge(
            "utility_gate_upstream_usable",
            "1 while an address gets calls: connected, healthy and not ejected.",
            ["upstream", "address"],
            registry=registry,
        )
        self.breaker = Gauge(
            "utility_gate_upstream_breaker_state",
            "0 closed (calls go there), 1 half open (one at a time is tried), 2 open (none).",
            ["upstream", "address"],
            registry=registry,
        )
        self.ejections = Counter(
            "utility_gate_upstream_ejections_total",
            "How often an address was ejected because it failed.",
            ["upstream", "address"],
            registry=registry,
        )
