"""From what networks said to labels: pure functions on arrays, the paper's sections III and IV.

Arrays have the shape (copies, networks) unless said otherwise. I is the copy, I' its pristine
source, S the ground truth, phi and phi' the confidence in S on I and I'.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from utility_gate.types import is_probability

USEFUL, NON_USEFUL, UNDECIDED = 1, 0, -1

Operator = Literal["unanimous", "majority", "mean"]
OPERATORS: tuple[Operator, ...] = ("unanimous", "majority", "mean")

Flags = npt.NDArray[np.bool_]
Confidences = npt.NDArray[np.float64]
Votes = npt.NDArray[np.int8]


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the rules judge by.

    `judged`: there is something to be found (a class; at least one reference object).
    `found_pristine`, `found`: the network is right on I'; on I. For detection an object counts as
    found on I if the same object was found on I'. `phi_pristine`, `phi`: confidence in S, 0 to 1.
    """

    judged: Flags
    found_pristine: Flags
    found: Flags
    phi_pristine: Confidences
    phi: Confidences


@dataclass(frozen=True, slots=True)
class CcspRule:
    """Classification: thresholds on the correct-class softmax probability, T_H and T_L
    (section V), and the recognition threshold of Eq. 2.

    Raises:
        ValueError: unless 0 <= t_low <= t_high <= 1 and 0 < recognition <= 1.
    """

    t_high: float = 0.9
    t_low: float = 0.1
    recognition: float = 0.5
    operator: Operator = "unanimous"

    def __post_init__(self) -> None:
        _check_numbers(t_high=self.t_high, t_low=self.t_low, recognition=self.recognition)
        ordered = self.t_low <= self.t_high
        if not (is_probability(self.t_low) and is_probability(self.t_high) and ordered):
            raise ValueError(
                f"expected 0 <= t_low <= t_high <= 1, got {self.t_low} and {self.t_high}"
            )
        _check_common(self.recognition, self.operator)

    def vote(self, seen: Evidence) -> Votes:
        """Useful if the network is right on both and CCSP > T_H; non-useful if it is right on the
        pristine image, wrong on the copy, and CCSP < T_L; else undecided. Both strict."""
        return _votes(
            useful=seen.found_pristine & seen.found & (seen.phi > self.t_high),
            non_useful=seen.found_pristine & ~seen.found & (seen.phi < self.t_low),
        )

    def able(self, seen: Evidence) -> Flags:
        """Which networks have a say in the continuous utility: those right on I'."""
        return seen.judged & seen.found_pristine


@dataclass(frozen=True, slots=True)
class DetectionRule:
    """Detection: an object is found with the right class, a score of at least `score` and an IoU
    of at least `iou` (section IV, Eq. 6).

    `require_pristine` leaves copies undecided whose pristine image fails already, so that the
    distortion alone is judged; the paper calls them non-useful.

    Raises:
        ValueError: unless score and iou are in [0, 1] and 0 < recognition <= 1.
    """

    score: float = 0.5
    iou: float = 0.5
    require_pristine: bool = False
    recognition: float = 0.5
    operator: Operator = "unanimous"

    def __post_init__(self) -> None:
        _check_numbers(score=self.score, iou=self.iou, recognition=self.recognition)
        if not isinstance(self.require_pristine, bool):
            raise ValueError(
                f"expected require_pristine true or false, got {self.require_pristine!r}"
            )
        if not (is_probability(self.score) and is_probability(self.iou)):
            raise ValueError(f"expected score and iou in [0, 1], got {self.score} and {self.iou}")
        _check_common(self.recognition, self.operator)

    def vote(self, seen: Evidence) -> Votes:
        """Useful if at least one object is found on I' and on I; non-useful otherwise; undecided
        where there is no object, or, if asked for, where none is found on I'."""
        return _votes(useful=seen.found, non_useful=self.able(seen) & ~seen.found)

    def able(self, seen: Evidence) -> Flags:
        """Which networks can judge a copy at all."""
        return seen.judged & seen.found_pristine if self.require_pristine else seen.judged


Rule = CcspRule | DetectionRule


def utility(phi: Confidences, phi_pristine: Confidences, recognition: float) -> Confidences:
    """Eq. 2: (phi - rec) / (1 - (phi' - rec)); negative where I is not recognised, at most
    (1 - rec) / rec. Any shape; the divisor is at least `recognition` > 0."""
    return (phi - recognition) / (1 - (phi_pristine - recognition))


def mean_utility(rule: Rule, seen: Evidence) -> Confidences:
    """Mean of Eq. 2 over the networks that can judge each copy, (copies,); NaN if none can."""
    able = rule.able(seen)
    values = np.where(able, utility(seen.phi, seen.phi_pristine, rule.recognition), 0.0)
    count = able.sum(axis=1)
    result: Confidences = np.divide(
        values.sum(axis=1), count, out=np.full(len(count), np.nan), where=count > 0
    )
    return result


def unanimous(votes: Votes) -> Votes:
    """1 if every network says 1, 0 if every network says 0, else undecided (Eq. 3); (copies,)."""
    return np.where((votes == votes[:, :1]).all(axis=1), votes[:, 0], UNDECIDED).astype(np.int8)


def majority(votes: Votes) -> Votes:
    """What more than half of all networks say, else undecided (Eq. 3); (copies,)."""
    half = votes.shape[1] / 2
    return _votes(
        useful=(votes == USEFUL).sum(axis=1) > half,
        non_useful=(votes == NON_USEFUL).sum(axis=1) > half,
    )


def by_sign(utilities: Confidences) -> Votes:
    """1 where the mean utility is positive, 0 where it is negative, else undecided; (copies,)."""
    return _votes(useful=utilities > 0, non_useful=utilities < 0)


def combine(rule: Rule, votes: Votes, utilities: Confidences) -> Votes:
    """The ensemble's label of each copy by the rule's operator O (Eq. 3); (copies,)."""
    match rule.operator:
        case "unanimous":
            return unanimous(votes)
        case "majority":
            return majority(votes)
        case "mean":
            return by_sign(utilities)


def _votes(useful: Flags, non_useful: Flags) -> Votes:
    return np.where(useful, USEFUL, np.where(non_useful, NON_USEFUL, UNDECIDED)).astype(np.int8)


def _check_numbers(**values: float) -> None:
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"expected a number for {name}, got {value!r}")


def _check_common(recognition: float, operator: str) -> None:
    if not (is_probability(recognition) and recognition > 0):
        raise ValueError(f"expected a recognition threshold in (0, 1], got {recognition}")
    if operator not in OPERATORS:
        raise ValueError(f"expected operator {', '.join(OPERATORS)}, got {operator!r}")
