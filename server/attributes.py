"""Verdicts as attributes of spans."""

from __future__ import annotations

from serving.tracing import Attributes
from utility_gate.types import Verdict


def describe(verdict: Verdict) -> Attributes:
    """A verdict as attributes; what it does not know is left out."""
    known: dict[str, str | int | float] = {
        "utility_gate.task": verdict.task,
        "utility_gate.mode": str(verdict.mode),
        "utility_gate.decision": str(verdict.decision),
    }
    if verdict.utility is not None:
        known["utility_gate.utility"] = verdict.utility
    if verdict.predictor is not None:
        known["utility_gate.predictor.name"] = verdict.predictor.name
        known["utility_gate.predictor.version"] = verdict.predictor.version
    if verdict.image is not None:
        known["utility_gate.image.format"] = verdict.image.format
        known["utility_gate.image.width"] = verdict.image.width
        known["utility_gate.image.height"] = verdict.image.height
    return known
