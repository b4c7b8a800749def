"""The labelling rules against tables worked by hand from the paper's sections III and IV."""

from __future__ import annotations

import numpy as np
import pytest

from labelers.rules import (
    CcspRule,
    DetectionRule,
    Evidence,
    Rule,
    combine,
    majority,
    mean_utility,
    unanimous,
    utility,
)

U, N, X = 1, 0, -1  # useful, non-useful, undecided


def evidence(
    found_pristine: bool = True,
    found: bool = True,
    phi: float = 0.95,
    phi_pristine: float = 0.99,
    judged: bool = True,
) -> Evidence:
    """One copy, one network."""
    return Evidence(
        judged=np.array([[judged]]),
        found_pristine=np.array([[found_pristine]]),
        found=np.array([[found]]),
        phi_pristine=np.array([[phi_pristine]]),
        phi=np.array([[phi]]),
    )


def votes(*rows: list[int]) -> np.ndarray:
    return np.array(rows, np.int8)


@pytest.mark.parametrize(
    ("right_on_pristine", "right", "ccsp", "label"),
    [
        # argmax(I') = S, argmax(I) = S, CCSP > T_H
        (True, True, 0.91, U),
        (True, True, 0.90, X),  # not above T_H
        (True, True, 0.50, X),
        # argmax(I') = S, argmax(I) != S, CCSP < T_L
        (True, False, 0.09, N),
        (True, False, 0.10, X),  # not below T_L
        (True, False, 0.40, X),
        # right, but hardly: a low CCSP alone is not non-useful
        (True, True, 0.05, X),
        # the pristine image failed already: only the distortion is to be judged
        (False, True, 0.99, X),
        (False, False, 0.01, X),
    ],
)
def test_one_classifier(right_on_pristine: bool, right: bool, ccsp: float, label: int) -> None:
    assert CcspRule().vote(evidence(right_on_pristine, right, ccsp)) == label


@pytest.mark.parametrize(
    ("judged", "found_pristine", "found", "paper", "strict"),
    [
        (True, True, True, U, U),
        (True, True, False, N, N),
        # nothing was found on the pristine image: non-useful as the paper reads it
        (True, False, False, N, X),
        # there is nothing to be found
        (False, False, False, X, X),
    ],
)
def test_one_detector(
    judged: bool, found_pristine: bool, found: bool, paper: int, strict: int
) -> None:
    seen = evidence(found_pristine, found, judged=judged)
    assert DetectionRule().vote(seen) == paper
    assert DetectionRule(require_pristine=True).vote(seen) == strict


def test_other_thresholds_give_other_labels() -> None:
    loose = CcspRule(t_high=0.4, t_low=0.4)
    assert loose.vote(evidence(phi=0.5)) == U
    assert loose.vote(evidence(found=False, phi=0.3)) == N


@pytest.mark.parametrize(
    "values",
    [{"t_high": 0.1, "t_low": 0.9}, {"t_high": float("nan")}, {"recognition": 0.0},
     {"operator": "max"}],
)  # fmt: skip
def test_impossible_ccsp_rules_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="expected"):
        CcspRule(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize("values", [{"iou": 1.5}, {"score": -1.0}, {"recognition": 2.0}])
def test_impossible_detection_rules_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="expected"):
        DetectionRule(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("row", "all_say", "most_say"),
    [
        ([U, U, U], U, U),
        ([N, N, N], N, N),
        ([U, U, N], X, U),
        ([U, U, X], X, U),
        ([N, X, N], X, N),
        ([U, X, X], X, X),
        ([U, N, X], X, X),
        ([X, X, X], X, X),
        ([U, N], X, X),  # half is not more than half
        ([U], U, U),
    ],
)
def test_ensembles(row: list[int], all_say: int, most_say: int) -> None:
    assert unanimous(votes(row)).tolist() == [all_say]
    assert majority(votes(row)).tolist() == [most_say]


def test_continuous_utility_by_hand() -> None:
    # (phi - rec) / (1 - (phi' - rec)), Eq. 2
    assert utility(np.array(0.9), np.array(0.9), 0.5) == pytest.approx(0.4 / 0.6)
    assert utility(np.array(0.2), np.array(0.9), 0.5) == pytest.approx(-0.3 / 0.6)
    # A sure network loses more by the same fall than one that was unsure from the start.
    assert utility(np.array(0.6), np.array(1.0), 0.5) > utility(np.array(0.6), np.array(0.7), 0.5)
    assert utility(np.array(1.0), np.array(1.0), 0.5) == pytest.approx(1.0)


def two_networks(second_right_on_pristine: bool) -> Evidence:
    return Evidence(
        judged=np.array([[True, True]]),
        found_pristine=np.array([[True, second_right_on_pristine]]),
        found=np.array([[True, False]]),
        phi_pristine=np.array([[1.0, 1.0]]),
        phi=np.array([[0.75, 0.0]]),
    )


@pytest.mark.parametrize(
    ("second_right", "mean", "label"), [(True, (0.5 - 1.0) / 2, N), (False, 0.5, U)]
)
def test_the_mean_is_over_the_networks_that_can_judge(
    second_right: bool, mean: float, label: int
) -> None:
    rule = CcspRule(operator="mean")
    seen = two_networks(second_right)
    utilities = mean_utility(rule, seen)
    assert utilities.tolist() == pytest.approx([mean])
    assert combine(rule, rule.vote(seen), utilities).tolist() == [label]


@pytest.mark.parametrize("rule", [CcspRule(operator="mean"), DetectionRule(operator="mean")])
def test_where_no_network_can_judge_there_is_no_mean(rule: Rule) -> None:
    seen = evidence(found_pristine=False, found=False, judged=False)
    utilities = mean_utility(rule, seen)
    assert np.isnan(utilities).all()
    assert combine(rule, rule.vote(seen), utilities).tolist() == [X]
