"""Arithmetic that labelling, serving and measuring share: softmax, and intervals by resampling."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

BOUNDS = (0.025, 0.975)
"""The quantiles of the resampled values between which an interval lies."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A number with the bounds between which 95 % of the resampled sets put it; NaN where there is
    nothing to compute it from."""

    value: float
    low: float
    high: float

    @property
    def percent(self) -> str:
        """A share for people: "80.9% (76.0% to 85.3%)", or "-" where there is none."""
        if not math.isfinite(self.value):
            return "-"
        return f"{self.value:.1%} ({self.low:.1%} to {self.high:.1%})"


def to_interval(value: float, resampled: Floats | Sequence[float]) -> Interval:
    """`value` with the bounds that its resampled values (D,) give it; those that are not finite
    have no say, and without any other the bounds are NaN."""
    values = np.asarray(resampled, np.float64)
    known = values[np.isfinite(values)]
    low, high = np.quantile(known, BOUNDS) if len(known) else (np.nan, np.nan)
    return Interval(float(value), float(low), float(high))


def softmax(logits: npt.NDArray[Any], temperature: float = 1.0) -> Floats:
    """Probabilities (..., K) of logits (..., K) divided by `temperature`; float64, each row sums
    to 1."""
    scaled = logits.astype(np.float64) / temperature
    powers = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    result: Floats = powers / powers.sum(axis=-1, keepdims=True)
    return result
