"""From observations to labels: pure functions, the paper's section IV to the letter."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from utility_gate.degrade import PRISTINE
from utility_gate.errors import TableError
from utility_gate.split import split_of
from utility_gate.types import Label, Observation, is_probability

USEFUL = 1
NON_USEFUL = 0


@dataclass(frozen=True, slots=True)
class CcspRule:
    """Thresholds on the correct-class softmax probability, T_H and T_L (section V).

    Raises:
        ValueError: unless 0 <= t_low <= t_high <= 1.
    """

    t_high: float = 0.9
    t_low: float = 0.1

    def __post_init__(self) -> None:
        ordered = self.t_low <= self.t_high
        if not (is_probability(self.t_low) and is_probability(self.t_high) and ordered):
            raise ValueError(
                f"expected 0 <= t_low <= t_high <= 1, got {self.t_low} and {self.t_high}"
            )

    def decide(self, pristine: Observation, degraded: Observation) -> int | None:
        """One network's label of one copy: 1 useful, 0 non-useful, None undecided.

        Useful if the network is right on both and CCSP > T_H; non-useful if it is right on the
        pristine image, wrong on the copy, and CCSP < T_L. Both comparisons are strict.
        """
        if not pristine.correct:
            return None
        if degraded.correct and degraded.ccsp > self.t_high:
            return USEFUL
        if not degraded.correct and degraded.ccsp < self.t_low:
            return NON_USEFUL
        return None


def unanimous(votes: Sequence[int | None]) -> int | None:
    """1 if every network says 1, 0 if every network says 0, else undecided (Eq. 3).

    Raises:
        ValueError: if there is no vote.
    """
    if not votes:
        raise ValueError("expected at least one vote, got none")
    return votes[0] if all(vote == votes[0] for vote in votes) else None


def decide(
    observations: Iterable[Observation],
    networks: Sequence[str],
    rule: CcspRule | None = None,
) -> list[Label]:
    """Labels of all degraded copies, in the order in which the copies first appear.

    Only observations of `networks` count; others (a baseline looked at in the same run) are
    passed over.

    Raises:
        TableError: if a copy lacks an observation by a network, has two, or its source has no
            pristine observation.
    """
    rule = rule or CcspRule()
    pristine: dict[tuple[str, str], Observation] = {}
    copies: dict[tuple[str, str, int], dict[str, Observation]] = defaultdict(dict)
    for seen in observations:
        if seen.network not in networks:
            continue
        if seen.degradation == PRISTINE or seen.quality is None:
            if pristine.setdefault((seen.source, seen.network), seen) is not seen:
                raise TableError(f"{seen.source}: {seen.network} observed the pristine image twice")
            continue
        by_network = copies[(seen.source, seen.degradation, seen.quality)]
        if by_network.setdefault(seen.network, seen) is not seen:
            raise TableError(
                f"{seen.source}: {seen.network} observed {seen.degradation} {seen.quality} twice"
            )
    return [_label(key, seen, pristine, networks, rule) for key, seen in copies.items()]


def _label(
    key: tuple[str, str, int],
    seen: dict[str, Observation],
    pristine: dict[tuple[str, str], Observation],
    networks: Sequence[str],
    rule: CcspRule,
) -> Label:
    source, degradation, quality = key
    votes: list[int | None] = []
    for network in networks:
        if network not in seen:
            raise TableError(f"{source}: {network} did not observe {degradation} {quality}")
        if (source, network) not in pristine:
            raise TableError(f"{source}: {network} did not observe the pristine image")
        votes.append(rule.decide(pristine[(source, network)], seen[network]))
    first = seen[networks[0]]
    return Label(
        source=source,
        source_digest=first.source_digest,
        split=split_of(first.source_digest),
        degradation=degradation,
        quality=quality,
        image_digest=first.image_digest,
        label=unanimous(votes),
        useful_votes=votes.count(USEFUL),
        non_useful_votes=votes.count(NON_USEFUL),
        networks=len(votes),
    )
