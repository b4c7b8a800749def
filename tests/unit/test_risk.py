"""Thresholds with a guarantee: by hand, against brute force, and whether the promise is kept."""

from __future__ import annotations

import numpy as np
import pytest

from utility_gate.checkpoint import Guarantee
from utility_gate.training import risk
from utility_gate.training.risk import PASSED_NON_USEFUL, REJECTED_USEFUL, choose_thresholds


def photographs(
    seed: int, useful: int, non_useful: int, copies: int = 3
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Utilities, labels and owners of copies; those of one photograph resemble each other."""
    random = np.random.default_rng(seed)
    utilities, labels, owners = [], [], []
    for number in range(useful + non_useful):
        label = int(number < useful)
        middle = random.normal(1.5 if label else -1.5, 1.2)
        for _ in range(int(random.integers(1, copies + 1))):
            utilities.append(1 / (1 + np.exp(-random.normal(middle, 0.3))))
            labels.append(label)
            owners.append(str(number))
    return np.array(utilities), np.array(labels), owners


def mean_loss(wrong: np.ndarray, owners: list[str]) -> float:
    shares: dict[str, list[bool]] = {}
    for owner, value in zip(owners, wrong, strict=True):
        shares.setdefault(owner, []).append(bool(value))
    return float(np.mean([np.mean(values) for values in shares.values()]))


@pytest.mark.parametrize("seed", range(5))
def test_the_thresholds_are_the_furthest_that_keep_the_bound(seed: int) -> None:
    utility, labels, owners = photographs(seed, 300, 60)
    thresholds, (rejecting, passing) = choose_thresholds(utility, labels, owners)
    useful = labels == 1
    own = [o for o, keep in zip(owners, useful, strict=True) if keep]
    others = [o for o, keep in zip(owners, useful, strict=True) if not keep]

    def bounded(loss: float, n: int, alpha: float) -> bool:
        return (loss * n + 1) / (n + 1) <= alpha + 1e-9

    rejected = {t: mean_loss(utility[useful] < t, own) for t in np.sort(utility[useful])}
    allowed = [t for t, loss in rejected.items() if bounded(loss, 300, REJECTED_USEFUL)]
    passed = {t: mean_loss(utility[~useful] > t, others) for t in np.sort(utility[~useful])}
    kept = [t for t, loss in passed.items() if bounded(loss, 60, PASSED_NON_USEFUL)]
    assert thresholds.review == pytest.approx(max(allowed))
    assert thresholds.useful == pytest.approx(min(kept))
    assert rejecting.holds
    assert passing.holds
    assert rejecting.achieved == pytest.approx(rejected[max(allowed)])
    assert passing.achieved == pytest.approx(passed[min(kept)])
    assert (rejecting.sources, passing.sources) == (300, 60)


def test_the_promise_is_kept_on_average_over_new_photographs() -> None:
    rejected, passed = [], []
    for seed in range(200):
        thresholds, _ = choose_thresholds(*photographs(seed, 120, 40))
        utility, labels, owners = photographs(seed + 10_000, 200, 200)
        for label, losses in ((1, rejected), (0, passed)):
            mine = labels == label
            own = [o for o, keep in zip(owners, mine, strict=True) if keep]
            wrong = (
                utility[mine] < thresholds.review if label else utility[mine] >= thresholds.useful
            )
            losses.append(mean_loss(wrong, own))
    for losses, alpha in ((rejected, REJECTED_USEFUL), (passed, PASSED_NON_USEFUL)):
        noise = float(np.std(losses)) / np.sqrt(len(losses))
        assert np.mean(losses) <= alpha + 2 * noise
        assert np.mean(losses) > alpha / 10  # and not by promising nothing


def test_too_few_photographs_promise_nothing() -> None:
    utility, labels, owners = photographs(0, 98, 18)
    _, (rejecting, passing) = choose_thresholds(utility, labels, owners)
    assert not rejecting.holds  # 1 % of 99
    assert not passing.holds  # 5 % of 19
    assert rejecting.achieved <= REJECTED_USEFUL
    assert passing.achieved <= PASSED_NON_USEFUL
    _, (rejecting, passing) = choose_thresholds(*photographs(0, 99, 19))
    assert rejecting.holds
    assert passing.holds


def test_classes_that_separate_leave_no_band() -> None:
    utility = np.array([0.1] * 30 + [0.9] * 120)
    labels = np.array([0] * 30 + [1] * 120)
    owners = [str(number) for number in range(150)]
    thresholds, guarantees = choose_thresholds(utility, labels, owners)
    assert thresholds.review == thresholds.useful == pytest.approx(0.5)
    assert all(g.holds and g.achieved == 0 and g.threshold == thresholds.useful for g in guarantees)


def test_non_useful_copies_of_utility_1_break_the_promise_and_it_says_so() -> None:
    utility = np.array([1.0] * 10 + [0.1] * 90 + [1.0] * 120)
    labels = np.array([0] * 100 + [1] * 120)
    _, (_, passing) = choose_thresholds(utility, labels, [str(n) for n in range(220)])
    assert passing.threshold == 1.0
    assert passing.achieved == pytest.approx(0.1)
    assert not passing.holds
    Guarantee.model_validate(passing.model_dump())  # or no card with it could be read


def test_equal_utilities_are_all_on_one_side() -> None:
    utility = np.array([0.4] * 200 + [0.4] * 40)
    labels = np.array([1] * 200 + [0] * 40)
    thresholds, (rejecting, passing) = choose_thresholds(
        utility, labels, [str(number) for number in range(240)]
    )
    assert thresholds.review == 0.4  # none is below it
    assert thresholds.useful > 0.4  # none is at or above it
    assert rejecting.achieved == passing.achieved == 0
    assert risk.REJECTED_USEFUL < risk.PASSED_NON_USEFUL
