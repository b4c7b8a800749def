"""What was done, in words: the rule, the reference; and numbers as the page has them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from labelers.rules import CcspRule, Rule

NOTHING = "\u2013"
"""Where there is no number."""

_OPERATORS = {
    "unanimous": "all voters agree; a copy on which they do not is undecided",
    "majority": "more than half of all voters agree; else a copy is undecided",
    "mean": "the sign of the mean utility (Eq. 2) decides; votes do not",
}


def describe_vote(rule: Rule) -> str:
    """When one network votes useful, non-useful or neither."""
    if isinstance(rule, CcspRule):
        return (
            "A network votes useful if its prediction is right on the pristine image and on the "
            "copy, and the softmax probability of the correct class (CCSP) on the copy exceeds "
            f"T_H = {rule.t_high:g}; non-useful if it is right on the pristine image, wrong on "
            f"the copy, and the CCSP is below T_L = {rule.t_low:g}; otherwise it is undecided."
        )
    otherwise = (
        "undecided where it finds none on the pristine image or there is no object to find, and "
        "non-useful otherwise."
        if rule.require_pristine
        else "undecided where there is no object to find, and non-useful otherwise."
    )
    return (
        "A network votes useful if at least one reference object is found on the pristine image "
        f"and on the copy, with the right class, a score of at least {rule.score:g} and an IoU of "
        f"at least {rule.iou:g}; {otherwise}"
    )


def describe_operator(rule: Rule) -> str:
    """How votes become a label (Eq. 3)."""
    return f"{rule.operator}: {_OPERATORS[rule.operator]}"


def describe_reference(metadata: Mapping[str, Any]) -> str:
    """What the networks are measured against."""
    if metadata["reference"] == "truth":
        return "ground truth of the data set"
    return (
        "what each network itself says of the pristine image, where its score is at least "
        f"{metadata['reference_score']:g}; no ground truth"
    )


def name_right(task: str, metadata: Mapping[str, Any]) -> str:
    """What it means that a network is right, as a short quantity for an axis."""
    own = metadata["reference"] == "pristine"
    if task == "classification":
        return "agreement with the pristine image" if own else "top-1 accuracy"
    return "share of sources with an object found"


def source_sets(paths: Iterable[str]) -> list[tuple[str, int]]:
    """Folders that sources lie in (the first part of their paths) and how many are in each."""
    folders = (path.partition("/")[0] if "/" in path else "(top folder)" for path in paths)
    return sorted(Counter(folders).items())


def percent(share: float, digits: int = 1) -> str:
    """ "91.2 %", a dash where nothing was counted."""
    return NOTHING if math.isnan(share) else f"{100 * share:.{digits}f}\u202f%"


def decimal(value: float, digits: int = 2) -> str:
    """ "0.83", a dash for NaN, a real minus sign."""
    return NOTHING if math.isnan(value) else f"{value:.{digits}f}".replace("-", "\u2212")


def grouped(number: int) -> str:
    """ "12 345", with narrow spaces."""
    return f"{number:,}".replace(",", "\u202f")
