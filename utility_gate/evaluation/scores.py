"""How well a score tells useful copies from others: accuracy, ranking, calibration. NumPy alone.

Labels are 1 (useful) and 0 (non-useful); scores are higher where a gate holds a copy for useful.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

ECE_BINS = 10
"""Equal bins of utility for calibration."""

CANDIDATES = 512
"""Thresholds that are tried at most; between more scores than that, at their quantiles."""


@dataclass(frozen=True, slots=True)
class Bin:
    """Copies whose utility lies in [low, high): their `share` of all, their mean utility, and the
    share of them that is useful. Means are NaN where there is none."""

    low: float
    high: float
    share: float
    utility: float
    useful: float


def balanced_accuracy(useful: Flags, labels: Labels) -> float:
    """Mean of the two classes' recalls, for decisions (N,) and labels (N,) in {0, 1}."""
    return float((useful[labels == 1].mean() + (~useful[labels == 0]).mean()) / 2)


def best_threshold(scores: Floats, labels: Labels) -> float:
    """The threshold (useful at or above) with the best balanced accuracy on these scores (N,)."""
    candidates = np.unique(scores)
    middles = (candidates[1:] + candidates[:-1]) / 2
    candidates = np.concatenate([candidates[:1], middles, candidates[-1:] + 1e-9])
    if len(candidates) > CANDIDATES:
        candidates = np.quantile(candidates, np.linspace(0, 1, CANDIDATES))
    accuracies = [balanced_accuracy(scores >= candidate, labels) for candidate in candidates]
    return float(candidates[int(np.argmax(accuracies))])


class Ranking:
    """Scores (N,) sorted once, so that the area under their ROC curve is quick to compute of copies
    weighed anew."""

    def __init__(self, scores: Floats, labels: Labels) -> None:
        self._order = np.argsort(scores, kind="stable")
        ordered = scores[self._order]
        self._starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
        self._useful = (labels[self._order] == 1).astype(np.float64)

    def auroc(self, weights: Floats) -> Floats:
        """The areas (D,) for D sets of weights (D, N): the chance that a useful copy scores above a
        non-useful one, equal scores counted half. NaN where a class has no weight."""
        ordered = weights[:, self._order]
        useful = np.add.reduceat(ordered * self._useful, self._starts, axis=1)
        others = np.add.reduceat(ordered * (1 - self._useful), self._starts, axis=1)
        below = np.cumsum(others, axis=1) - others
        pairs = useful.sum(1) * others.sum(1)
        wins = (useful * (below + others / 2)).sum(1)
        result: Floats = np.divide(wins, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)
        return result


def auroc(scores: Floats, labels: Labels) -> float:
    """The area under the ROC curve of scores (N,); NaN if a class is missing."""
    return float(Ranking(scores, labels).auroc(np.ones((1, len(scores))))[0])


def roc(scores: Floats, labels: Labels) -> tuple[Floats, Floats]:
    """The ROC curve from (0, 0) to (1, 1): shares of non-useful and of useful copies that score at
    least a threshold, for every threshold there is, highest first; both (K,)."""
    thresholds = np.unique(scores)[::-1]
    useful, others = np.sort(scores[labels == 1]), np.sort(scores[labels == 0])
    rates = [
        1 - np.searchsorted(side, thresholds, side="left") / max(len(side), 1)
        for side in (others, useful)
    ]
    return np.concatenate([[0.0], rates[0]]), np.concatenate([[0.0], rates[1]])


def ece(utilities: Floats, labels: Labels) -> float:
    """Expected calibration error (Guo et al., 2017) of utilities (N,) in [0, 1], in `ECE_BINS`
    equal bins."""
    return _calibration_error(utilities, labels, np.full(len(labels), 1 / len(labels)))


def balanced_ece(utilities: Floats, labels: Labels) -> float:
    """Expected calibration error with each class weighing 1/2 in all (`ECE_BINS` equal bins), of
    utilities (N,) in [0, 1]."""
    return _calibration_error(utilities, labels, class_weights(labels))


def class_weights(labels: Labels) -> Floats:
    """Weights (N,) that give each of two classes 1/2 in all."""
    useful = labels == 1
    result: Floats = np.where(useful, 0.5 / useful.sum(), 0.5 / (~useful).sum())
    return result


def reliability(utilities: Floats, labels: Labels, weights: Floats) -> tuple[Bin, ...]:
    """The reliability diagram of utilities (N,) in [0, 1]: `ECE_BINS` equal bins, copies weighed by
    `weights` (N,)."""
    bins = _bins(utilities)
    total = np.bincount(bins, weights, ECE_BINS)
    with np.errstate(invalid="ignore"):
        said = np.bincount(bins, weights * utilities, ECE_BINS) / total
        true = np.bincount(bins, weights * labels, ECE_BINS) / total
    shares = total / total.sum()
    return tuple(
        Bin(number / ECE_BINS, (number + 1) / ECE_BINS, float(share), float(mean), float(useful))
        for number, (share, mean, useful) in enumerate(zip(shares, said, true, strict=True))
    )


def _calibration_error(utilities: Floats, labels: Labels, weights: Floats) -> float:
    gaps = np.bincount(_bins(utilities), weights * (utilities - labels), minlength=ECE_BINS)
    return float(np.abs(gaps).sum())


def _bins(utilities: Floats) -> npt.NDArray[np.int64]:
    return np.minimum((utilities * ECE_BINS).astype(np.int64), ECE_BINS - 1)
