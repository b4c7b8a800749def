"""Advice on a line of a table."""

from __future__ import annotations

from utility_gate.types import Advice


def brief(advice: Advice) -> str:
    """Kind and value: "LARGER 224"."""
    return advice.kind if advice.value is None else f"{advice.kind} {advice.value:.3g}"
