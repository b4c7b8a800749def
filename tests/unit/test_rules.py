"""The labelling rules against tables worked by hand from the paper's section IV."""

from __future__ import annotations

import dataclasses

import pytest

from labelers.rules import CcspRule, decide, unanimous
from utility_gate.errors import TableError
from utility_gate.types import Observation

RIGHT, WRONG = 3, 4


def seen(
    predicted: int = RIGHT,
    ccsp: float = 0.95,
    *,
    network: str = "a",
    quality: int | None = None,
    source: str = "cat.jpg",
) -> Observation:
    return Observation(
        source=source,
        source_digest="0" * 64,
        degradation="none" if quality is None else "jpeg",
        quality=quality,
        image_digest=f"{source}-{quality}",
        network=network,
        network_digest="1" * 64,
        true_class=RIGHT,
        predicted_class=predicted,
        top1=max(ccsp, 0.5),
        ccsp=ccsp,
    )


@pytest.mark.parametrize(
    ("pristine", "degraded", "ccsp", "label"),
    [
        # argmax(I') = S, argmax(I) = S, CCSP > T_H
        (RIGHT, RIGHT, 0.91, 1),
        (RIGHT, RIGHT, 0.90, None),  # not above T_H
        (RIGHT, RIGHT, 0.50, None),
        # argmax(I') = S, argmax(I) != S, CCSP < T_L
        (RIGHT, WRONG, 0.09, 0),
        (RIGHT, WRONG, 0.10, None),  # not below T_L
        (RIGHT, WRONG, 0.40, None),
        # right, but hardly: a low CCSP alone is not non-useful
        (RIGHT, RIGHT, 0.05, None),
        # the pristine image failed already: only the distortion is to be judged
        (WRONG, RIGHT, 0.99, None),
        (WRONG, WRONG, 0.01, None),
    ],
)
def test_one_network(pristine: int, degraded: int, ccsp: float, label: int | None) -> None:
    decided = CcspRule().decide(seen(pristine), seen(degraded, ccsp, quality=10))
    assert decided == label


def test_other_thresholds_give_other_labels() -> None:
    loose = CcspRule(t_high=0.4, t_low=0.4)
    assert loose.decide(seen(), seen(RIGHT, 0.5, quality=10)) == 1
    assert loose.decide(seen(), seen(WRONG, 0.3, quality=10)) == 0
    with pytest.raises(ValueError, match="t_low <= t_high"):
        CcspRule(t_high=0.1, t_low=0.9)


@pytest.mark.parametrize(
    ("votes", "label"),
    [
        ([1, 1, 1], 1),
        ([0, 0, 0], 0),
        ([1, 1, 0], None),
        ([1, 1, None], None),
        ([0, None, 0], None),
        ([None, None, None], None),
        ([1], 1),
        ([0], 0),
    ],
)
def test_unanimous(votes: list[int | None], label: int | None) -> None:
    assert unanimous(votes) == label


def test_unanimous_needs_a_vote() -> None:
    with pytest.raises(ValueError, match="at least one"):
        unanimous([])


def test_a_whole_table() -> None:
    table = [
        seen(network="a"),
        seen(network="b"),
        seen(network="a", quality=90),
        seen(network="b", quality=90),
        seen(WRONG, 0.02, network="a", quality=5),
        seen(WRONG, 0.03, network="b", quality=5),
        seen(network="a", quality=20),
        seen(WRONG, 0.02, network="b", quality=20),
        seen(WRONG, 0.0, network="onlooker", quality=90),
    ]
    labels = decide(table, ["a", "b"])
    assert [(label.quality, label.label) for label in labels] == [(90, 1), (5, 0), (20, None)]
    assert (labels[2].useful_votes, labels[2].non_useful_votes, labels[2].networks) == (1, 1, 2)
    assert len({label.split for label in labels}) == 1
    assert labels[0].image_digest == "cat.jpg-90"


def test_all_copies_of_a_source_are_on_one_side() -> None:
    table = []
    for number in range(200):
        source = f"{number}.jpg"
        digest = f"{number:064x}"
        for quality in (None, 90, 10):
            row = seen(quality=quality, source=source)
            table.append(dataclasses.replace(row, source_digest=digest))
    labels = decide(table, ["a"])
    sides = {label.source: {other.split for other in labels if other.source == label.source}
             for label in labels}  # fmt: skip
    assert all(len(side) == 1 for side in sides.values())
    test_share = sum(side == {"test"} for side in sides.values()) / len(sides)
    assert 0.12 < test_share < 0.28


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ([seen(network="a"), seen(network="a", quality=9)], "b did not observe jpeg 9"),
        ([seen(quality=9), seen(network="b", quality=9)], "did not observe the pristine"),
        ([seen(), seen()], "observed the pristine image twice"),
        ([seen(), seen(quality=9), seen(quality=9)], "observed jpeg 9 twice"),
    ],
)
def test_incomplete_tables_are_refused(table: list[Observation], message: str) -> None:
    with pytest.raises(TableError, match=message):
        decide(table, ["a", "b"])
