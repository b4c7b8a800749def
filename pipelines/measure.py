"""How good a classifier is: pure functions of targets and probabilities."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from utility_gate.statistics import Interval, softmax, to_interval

Numbers = npt.NDArray[np.integer[Any]]
Floats = npt.NDArray[np.floating[Any]]

BETA = 2.0
"""F-beta weighs recall this much more than precision: damage that is overlooked costs more."""

DRAWS = 1000


@dataclass(frozen=True, slots=True)
class Scores:
    """One head on one set of images. `precision`, `recall` and `f_beta` are means over the classes
    that occur; `majority` is the accuracy of whoever always says the commonest class of the
    training side."""

    images: int
    accuracy: Interval
    top3: Interval
    precision: float
    recall: float
    f_beta: float
    balanced_accuracy: float
    majority: float
    ece: float


def confusion(targets: Numbers, predicted: Numbers, classes: int) -> npt.NDArray[np.int64]:
    """Counts (K, K): true classes down, predicted ones across."""
    table = np.zeros((classes, classes), np.int64)
    np.add.at(table, (targets, predicted), 1)
    return table


def precision_recall(table: npt.NDArray[np.int64]) -> tuple[Floats, Floats, Floats]:
    """Precision, recall and F-beta of each class (K,) of a confusion matrix; 0 where a class was
    never predicted, NaN (all three) where it does not occur."""
    right = np.diag(table).astype(np.float64)
    said, true = table.sum(0), table.sum(1)
    precision = np.divide(right, said, out=np.zeros_like(right), where=said > 0)
    recall = np.divide(right, true, out=np.zeros_like(right), where=true > 0)
    weight = BETA**2
    below = weight * precision + recall
    f_beta = np.divide(
        (1 + weight) * precision * recall, below, out=np.zeros_like(right), where=below > 0
    )
    absent = true == 0
    return tuple(np.where(absent, np.nan, x) for x in (precision, recall, f_beta))  # type: ignore[return-value]


def in_top(probabilities: Floats, targets: Numbers, k: int) -> npt.NDArray[np.bool_]:
    """Whether the true class is among the k likeliest, (N,)."""
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
    result: npt.NDArray[np.bool_] = (best == targets[:, None]).any(1)
    return result


def bootstrap(values: Floats | npt.NDArray[np.bool_], groups: list[str], seed: int = 0) -> Interval:
    """The mean of `values` (N,) with its 95 % interval by resampling whole groups (originals)."""
    _, index = np.unique(np.asarray(groups), return_inverse=True)
    count = int(index.max()) + 1
    sums = np.bincount(index, values.astype(np.float64), count)
    sizes = np.bincount(index, minlength=count)
    random = np.random.default_rng(seed)
    draws = random.integers(0, count, (DRAWS, count))
    means = sums[draws].sum(1) / sizes[draws].sum(1)
    return to_interval(float(np.mean(values)), means)


def calibration_error(probabilities: Floats, targets: Numbers, bins: int = 15) -> float:
    """Expected calibration error of the likeliest class, equal-width bins (Guo et al., 2017)."""
    sure = probabilities.max(1)
    right = probabilities.argmax(1) == targets
    which = np.minimum((sure * bins).astype(int), bins - 1)
    gaps = [
        abs(sure[which == b].mean() - right[which == b].mean()) * (which == b).mean()
        for b in range(bins)
        if (which == b).any()
    ]
    return float(sum(gaps))


def score(
    probabilities: Floats, targets: Numbers, groups: list[str], commonest: int
) -> tuple[Scores, npt.NDArray[np.int64]]:
    """Scores and confusion matrix of probabilities (N, K) for targets (N,)."""
    predicted = probabilities.argmax(1)
    table = confusion(targets, predicted, probabilities.shape[1])
    precision, recall, f_beta = precision_recall(table)
    scores = Scores(
        images=len(targets),
        accuracy=bootstrap(predicted == targets, groups),
        top3=bootstrap(in_top(probabilities, targets, 3), groups),
        precision=float(np.nanmean(precision)),
        recall=float(np.nanmean(recall)),
        f_beta=float(np.nanmean(f_beta)),
        balanced_accuracy=float(np.nanmean(recall)),
        majority=float((targets == commonest).mean()),
        ece=calibration_error(probabilities, targets),
    )
    return scores, table


def fit_temperature(logits: Floats, targets: Numbers) -> float:
    """The temperature in [0.2, 5] with the lowest negative log-likelihood (Guo et al., 2017), by
    golden-section search on its logarithm."""

    def cost(log_t: float) -> float:
        p = softmax(logits, float(np.exp(log_t)))[np.arange(len(targets)), targets]
        return float(-np.log(np.maximum(p, 1e-12)).mean())

    return float(np.exp(_minimize(cost, float(np.log(0.2)), float(np.log(5.0)))))


def _minimize(cost: Callable[[float], float], low: float, high: float) -> float:
    ratio = (5**0.5 - 1) / 2
    for _ in range(40):
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        low, high = (low, right) if cost(left) < cost(right) else (left, high)
    return (low + high) / 2
