"""From which probability on an answer is given, so that few of those given are wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

_Z = 1.6449
"""The 95 % quantile of the normal distribution: bounds are one-sided."""


def upper_bound(wrong: int, told: int) -> float:
    """The share that is wrong at most, with 95 % confidence: Wilson's upper bound; 1 of nothing."""
    if told == 0:
        return 1.0
    share, z2 = wrong / told, _Z**2
    middle = share + z2 / (2 * told)
    spread = _Z * float(np.sqrt(share * (1 - share) / told + z2 / (4 * told**2)))
    return min(1.0, (middle + spread) / (1 + z2 / told))


def threshold_for(
    probabilities: npt.NDArray[np.floating[Any]], right: npt.NDArray[np.bool_], most_wrong: float
) -> float:
    """The lowest threshold at which at most `most_wrong` of the answers that are as probable or
    more are wrong, by the upper end of a one-sided 95 % interval at that threshold; 1 if there is
    none.

    `probabilities` and `right` (N,) are of held-out answers. Thresholds are tried from above, and
    the first that fails after one that holds ends the search. The interval is that of one threshold
    chosen beforehand: of many that are tried some hold by luck, so this is caution, not a promise
    with 95 % confidence.
    """
    order = np.argsort(-probabilities, kind="stable")
    best, held = 1.0, False
    wrong = np.cumsum(~right[order])
    for told, i in enumerate(order, 1):
        if told < len(order) and probabilities[order[told]] == probabilities[i]:
            continue  # ties are told together
        holds = upper_bound(int(wrong[told - 1]), told) <= most_wrong
        if held and not holds:
            break
        if holds:
            best, held = float(probabilities[i]), True
    return best
