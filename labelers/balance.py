"""Class balance: augment sources, degrade and label them anew, until the rarer class has caught up.

No label is ever copied: an augmented source goes past all networks like any other. It stays on
its source's side of the split.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from labelers.config import BalanceConfig
from labelers.observe import WorkItem
from labelers.rules import NON_USEFUL, USEFUL
from labelers.truth import Truth
from utility_gate.augment import draw
from utility_gate.degrade import Degradation, to_json
from utility_gate.split import unit_hash

MOST_PER_SOURCE = 8
"""Augmented versions of one source in one round, at most."""

SIDES = ("train", "test")

Parent = tuple[str, str]


@dataclass(frozen=True, slots=True)
class SideCounts:
    """Decided copies of one side."""

    side: str
    useful: int
    non_useful: int

    def missing(self, ratio: float) -> int:
        """How many copies of the rarer class are missing to `ratio` times the other."""
        rarer, other = sorted((self.useful, self.non_useful))
        return max(0, math.ceil(ratio * other) - rarer)

    @property
    def rarer(self) -> int:
        """The label of the rarer class."""
        return USEFUL if self.useful < self.non_useful else NON_USEFUL


def count_sides(labels: pa.Table) -> list[SideCounts]:
    """Decided copies by side, from a label table."""
    pairs = Counter(zip(labels["split"].to_pylist(), labels["label"].to_pylist(), strict=True))
    return [SideCounts(side, pairs[side, USEFUL], pairs[side, NON_USEFUL]) for side in SIDES]


def plan_round(
    labels: pa.Table,
    truth: Sequence[Truth],
    degradations: Sequence[Degradation],
    config: BalanceConfig,
    round_: int,
    first_number: int,
) -> list[WorkItem]:
    """What to observe in round `round_` (from 1), numbered from `first_number`; nothing once the
    classes meet the ratio, or where the rarer class never occurs.

    Each source with copies of the rarer class is augmented and degraded as those copies were.

    Depends on the labels so far and the configuration alone, so an interrupted run plans the
    same again.
    """
    names = [
        "source",
        "source_digest",
        "augmentation",
        "split",
        "degradation",
        "parameters",
        "label",
    ]
    rows = labels.select(names).to_pylist()
    by_path = {row.path: row for row in truth}
    by_name = {
        (degradation.name, to_json(degradation)): degradation for degradation in degradations
    }
    items: list[WorkItem] = []
    for counts in count_sides(labels):
        own = [row for row in rows if row["split"] == counts.side]
        parents = _parents(own, counts.rarer)
        wanted = _augmentations(counts.missing(config.ratio), own, parents, counts.rarer)
        order = sorted(
            parents, key=lambda parent: unit_hash(str(config.seed), str(round_), *parent)
        )
        for number in range(min(wanted, MOST_PER_SOURCE * len(order))):
            path, digest = order[number % len(order)]
            drawn = draw(config.seed, digest, round_ * MOST_PER_SOURCE + number // len(order))
            chosen = tuple(by_name[key] for key in parents[path, digest])
            items.append(WorkItem(first_number + len(items), by_path[path], drawn.name, chosen))
    return items


def _parents(rows: list[dict[str, Any]], rarer: int) -> dict[Parent, list[tuple[str, str]]]:
    """Sources (path, digest) that have copies of the rarer class, with the degradations of
    those: an augmented source most likely shares its source's fate."""
    found: dict[Parent, list[tuple[str, str]]] = defaultdict(list)
    for row in rows:
        if row["label"] == rarer and not row["augmentation"]:
            parent = (row["source"], row["source_digest"])
            found[parent].append((row["degradation"], row["parameters"]))
    return found


def _augmentations(
    missing: int, rows: list[dict[str, Any]], parents: Mapping[Parent, object], rarer: int
) -> int:
    """How many augmented sources should give `missing` copies of the rarer class, by what
    sources, and augmented ones of earlier rounds, have given so far."""
    if not missing or not parents:
        return 0
    gained = [row["label"] for row in rows].count(rarer)
    made = len({(row["source"], row["augmentation"]) for row in rows if row["augmentation"]})
    return math.ceil(missing * (len(parents) + made) / gained)
