"""Thresholds that keep a promise: conformal risk control (Angelopoulos et al., ICLR 2024).

The promise is about photographs, not copies: copies of one photograph resemble each other, new
photographs are exchangeable with those that calibrated. The loss of a photograph at a threshold is
the share of its copies of one class that end on the wrong side; it lies in [0, 1] and falls or
rises with the threshold alone. Of n photographs, the threshold at which (sum of losses + 1) /
(n + 1) is at most alpha keeps the expected loss of the next one at or below alpha (their eq. 4).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from utility_gate.checkpoint import Guarantee
from utility_gate.types import Thresholds

REJECTED_USEFUL = 0.01
PASSED_NON_USEFUL = 0.05
"""Expected shares on the wrong side that the two thresholds promise to stay within."""

Floats = npt.NDArray[np.float64]


def choose_thresholds(
    utility: Floats, labels: npt.NDArray[np.int64], sources: Sequence[str]
) -> tuple[Thresholds, tuple[Guarantee, ...]]:
    """Thresholds by risk, for utilities (N,) in [0, 1], labels (N,) in {0, 1} and the copies'
    photographs.

    `review` is the highest value below which at most 1 % of a photograph's useful copies fall in
    expectation, `useful` the lowest at or above which at most 5 % of its non-useful ones stay.
    Where the classes separate so well that these cross, both become their middle, which keeps both
    promises. Too few photographs to promise anything: the same on the shares as observed, and the
    guarantee says that it does not hold.
    """
    owners = np.asarray(sources)
    useful, non_useful = labels == 1, labels == 0
    review, rejecting = _bound(utility[useful], owners[useful], REJECTED_USEFUL, "reject_useful")
    passing, passed = _bound(
        -utility[non_useful], owners[non_useful], PASSED_NON_USEFUL, "pass_non_useful"
    )
    # Passing is at or above the threshold, and `_bound` counts what is strictly below.
    pass_at = min(1.0, float(np.nextafter(-passing, 2.0)))
    if review >= pass_at:
        review = pass_at = (review + pass_at) / 2
    thresholds = Thresholds(useful=pass_at, review=review)
    return thresholds, (
        _state(rejecting, utility[useful] < review, owners[useful], review),
        _state(passed, utility[non_useful] >= pass_at, owners[non_useful], pass_at),
    )


def _bound(
    scores: Floats, owners: npt.NDArray[np.str_], alpha: float, kind: str
) -> tuple[float, Guarantee]:
    """The highest threshold with few enough scores strictly below it."""
    names, owner, counts = np.unique(owners, return_inverse=True, return_counts=True)
    n = len(names)
    share = 1 / counts[owner]  # of its photograph's loss
    order = np.argsort(scores, kind="stable")
    # Loss at a threshold of the k-th lowest score: everything before it is below.
    losses = np.concatenate([[0.0], np.cumsum(share[order])[:-1]])
    holds = alpha * (n + 1) >= 1
    allowed = alpha * (n + 1) - 1 if holds else alpha * n
    # Of equal scores the first one's loss counts: the others are not below.
    ranked = scores[order]
    first = np.searchsorted(ranked, ranked, side="left")
    fits = np.flatnonzero(losses[first] <= allowed + 1e-12)
    threshold = float(ranked[fits[-1]])
    empty = Guarantee(
        kind=kind, risk=alpha, sources=n, threshold=0.0, achieved=0.0, holds=bool(holds)
    )
    return threshold, empty


def _state(
    guarantee: Guarantee, wrong: npt.NDArray[np.bool_], owners: npt.NDArray[np.str_], at: float
) -> Guarantee:
    """The guarantee with the threshold that was chosen in the end, and the loss observed at it."""
    names, owner, counts = np.unique(owners, return_inverse=True, return_counts=True)
    loss = float((np.bincount(owner, wrong, len(names)) / counts).mean())
    # Utilities of exactly 1 pass at any threshold.
    holds = guarantee.holds and loss <= guarantee.risk
    return guarantee.model_copy(update={"threshold": at, "achieved": loss, "holds": holds})
