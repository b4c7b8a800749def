"""From a run's arrays to the numbers that the page shows: pure, nothing is drawn here.

Rates are of the sources as they are. Augmented ones were chosen by their labels (balancing), so
they would bend every share; they appear in the counts of labels alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from labelers.report.read import Numbers, Reals, Run
from labelers.rules import NON_USEFUL, UNDECIDED, USEFUL, Votes

OUTCOMES = (USEFUL, NON_USEFUL, UNDECIDED)
"""Order of the last axis of all counts."""

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
BINS = 20
_Z95 = 1.959963984540054
_ABSENT = -2


@dataclass(frozen=True, slots=True)
class Rates:
    """Successes and trials, with 95 % Wilson intervals; any shape. NaN where there is no trial."""

    successes: Numbers
    trials: Numbers

    @property
    def share(self) -> Reals:
        """Successes per trial, 0 to 1."""
        return _divide(self.successes, self.trials)

    @property
    def interval(self) -> tuple[Reals, Reals]:
        """Lower and upper end, 0 to 1."""
        n, p, z2 = self.trials, self.share, _Z95**2
        with np.errstate(divide="ignore", invalid="ignore"):
            centre = (p + z2 / (2 * n)) / (1 + z2 / n)
            half = _Z95 / (1 + z2 / n) * np.sqrt(p * (1 - p) / n + z2 / (4 * n**2))
        return np.clip(centre - half, 0, 1), np.clip(centre + half, 0, 1)


@dataclass(frozen=True, slots=True)
class Agreement:
    """Pairs of networks, (networks, networks): the share of equal votes among the copies that
    both decide, Cohen's kappa, and how many copies that are."""

    share: Reals
    kappa: Reals
    both: Numbers


@dataclass(frozen=True, slots=True)
class GroupRow:
    """Copies of the sources of one class, or with so many reference objects (`low` to `high`)."""

    low: int
    high: int
    sources: int
    useful: int
    non_useful: int
    undecided: int

    @property
    def copies(self) -> int:
        """All of them."""
        return self.useful + self.non_useful + self.undecided

    def share(self, count: int) -> float:
        """`count` of all copies, 0 to 1."""
        return count / self.copies


@dataclass(frozen=True, slots=True)
class Death:
    """A source that a family of degradations kills: the step at which it does, and the rows of
    the family's copies in order."""

    source: int
    family: str
    step: int
    rows: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Histogram:
    """Shares of a column's judged copies by confidence, (columns, networks, bins): those that the
    network got right, and the others. Column 0 is the pristine image, then come the steps."""

    right: Reals
    wrong: Reals


def count_labels(run: Run) -> Numbers:
    """All copies by step, side (train, test) and outcome: (steps, 2, 3)."""
    counts = np.zeros((len(run.steps), 2, len(OUTCOMES)), np.int64)
    np.add.at(counts, (run.step, run.test.astype(int), _outcome(run.label)), 1)
    return counts


def count_votes(run: Run, votes: Votes) -> Numbers:
    """Copies of unaugmented sources by step and outcome of `votes` (copies,): (steps, 3)."""
    own = ~run.augmented
    counts = np.zeros((len(run.steps), len(OUTCOMES)), np.int64)
    np.add.at(counts, (run.step[own], _outcome(votes[own])), 1)
    return counts


def shares(counts: Numbers) -> Reals:
    """Counts by outcome as shares of their sum; NaN where nothing was counted."""
    return _divide(counts, counts.sum(axis=-1, keepdims=True))


def accuracies(run: Run) -> Rates:
    """How often each network is right, (1 + steps, networks), the pristine image first."""
    pristine, own = _first_copies(run), np.flatnonzero(~run.augmented)
    shape = (1 + len(run.steps), len(run.networks))
    successes, trials = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    judged = run.seen.judged
    trials[0] = judged[pristine].sum(axis=0)
    successes[0] = (judged & run.seen.found_pristine)[pristine].sum(axis=0)
    np.add.at(trials, 1 + run.step[own], judged[own].astype(np.int64))
    np.add.at(successes, 1 + run.step[own], (judged & run.seen.found)[own].astype(np.int64))
    return Rates(successes, trials)


def group_labels(run: Run) -> list[GroupRow]:
    """Labels by class, or by number of reference objects, in ascending order."""
    own = ~run.augmented
    edges = _edges(run)
    low, high = edges[:, 0], edges[:, 1]
    group = np.searchsorted(low, run.group, side="right") - 1
    counts = np.zeros((len(edges), len(OUTCOMES)), np.int64)
    np.add.at(counts, (group[own], _outcome(run.label[own])), 1)
    sources = np.bincount(group[_first_copies(run)], minlength=len(edges))
    rows = np.column_stack([low, high, sources, counts]).tolist()
    return [GroupRow(*row) for row in rows if row[2]]


def rank(rows: Sequence[GroupRow]) -> list[GroupRow]:
    """Most robust first: by the share of useful copies, then by that of non-useful ones."""
    return sorted(rows, key=lambda r: (-r.share(r.useful), r.share(r.non_useful), r.low))


def agreements(votes: Votes) -> Agreement:
    """Who votes like whom, from votes (copies, networks)."""
    decided = (votes != UNDECIDED).astype(np.int64)
    useful, non_useful = ((votes == value).astype(np.int64) for value in (USEFUL, NON_USEFUL))
    both = decided.T @ decided
    share = _divide(useful.T @ useful + non_useful.T @ non_useful, both)
    # How often each says useful among the copies that the other decides as well.
    says = _divide(useful.T @ decided, both)
    by_chance = says * says.T + (1 - says) * (1 - says.T)
    return Agreement(share, _divide(share - by_chance, 1 - by_chance), both)


def find_deaths(run: Run) -> list[Death]:
    """Where unaugmented sources die: in each family at the first non-useful copy that follows a
    useful one and that no useful one follows, copies in the order of the configuration."""
    label = np.full((len(run.sources), len(run.steps)), _ABSENT, np.int8)
    row = np.full(label.shape, -1, np.int64)
    own = np.flatnonzero(~run.augmented)
    label[run.source[own], run.step[own]] = run.label[own]
    row[run.source[own], run.step[own]] = own
    found = []
    for family, steps in run.families.items():
        useful = label[:, steps] == USEFUL
        last = len(steps) - 1 - useful[:, ::-1].argmax(axis=1)
        after = np.arange(len(steps)) > last[:, None]
        dead = (label[:, steps] == NON_USEFUL) & after & useful.any(axis=1)[:, None]
        for source in np.flatnonzero(dead.any(axis=1)).tolist():
            rows = tuple(int(r) for r in row[source, steps] if r >= 0)
            found.append(Death(source, family, steps[int(dead[source].argmax())], rows))
    return found


def spread(run: Run, deaths: Sequence[Death], count: int) -> list[Death]:
    """At most `count` of them, each source once, taken in turn from every place of death; within
    a place by the source's digest, which is as good as chance and always the same."""
    digest = run.labels["source_digest"]
    waiting: dict[int, list[Death]] = defaultdict(list)
    for death in sorted(deaths, key=lambda d: str(digest[d.rows[0]]), reverse=True):
        waiting[death.step].append(death)
    chosen: dict[int, Death] = {}
    while len(chosen) < count and any(waiting.values()):
        for step in sorted(waiting):
            while waiting[step]:
                death = waiting[step].pop()
                if death.source not in chosen:
                    chosen[death.source] = death
                    break
            if len(chosen) == count:
                break
    return sorted(chosen.values(), key=lambda d: d.step)


def confidences(run: Run) -> Histogram:
    """Histograms of phi: CCSP, or the best score of a detection in the right place."""
    return _histogram(run, run.seen.phi_pristine, run.seen.phi)


def overlaps(run: Run) -> Histogram | None:
    """Histograms of the best IoU of a sure detection; None for classification."""
    if run.best_iou is None:
        return None
    copies, pristine = run.best_iou
    return _histogram(run, pristine, copies)


def utility_quantiles(run: Run) -> tuple[Reals, Numbers]:
    """`QUANTILES` of the continuous utility by step, (steps, 5), NaN where there is none; and of
    how many copies, (steps,)."""
    values = np.full((len(run.steps), len(QUANTILES)), np.nan)
    known = ~run.augmented & ~np.isnan(run.utility)
    count = np.bincount(run.step[known], minlength=len(run.steps))
    for step in np.flatnonzero(count):
        values[step] = np.quantile(run.utility[known & (run.step == step)], QUANTILES)
    return values, count.astype(np.int64)


def _histogram(run: Run, pristine: Reals, copies: Reals) -> Histogram:
    first, own = _first_copies(run), np.flatnonzero(~run.augmented)
    column = np.concatenate([np.zeros(len(first), np.int64), 1 + run.step[own]])
    values = np.concatenate([pristine[first], copies[own]])
    right = np.concatenate([run.seen.found_pristine[first], run.seen.found[own]])
    judged = np.concatenate([run.seen.judged[first], run.seen.judged[own]])
    counts = np.zeros((2, 1 + len(run.steps), len(run.networks), BINS), np.int64)
    cell = np.minimum((values * BINS).astype(np.int64), BINS - 1)
    copy, network = np.nonzero(judged)
    at = right[copy, network].astype(int), column[copy], network, cell[copy, network]
    np.add.at(counts, at, 1)
    share = _divide(counts, counts.sum(axis=(0, 3), keepdims=True))
    return Histogram(right=share[1], wrong=share[0])


def _edges(run: Run) -> Numbers:
    """First and last value of each group, (groups, 2): classes one by one, objects binned."""
    if run.task == "classification":
        values = np.unique(run.group)
        return np.column_stack([values, values])
    most = int(run.group.max())
    bins = [(0, 0), (1, 1), (2, 2), (3, 4), (5, 8), (9, 16), (17, max(17, most))]
    return np.array([one for one in bins if one[0] <= most], np.int64)


def _first_copies(run: Run) -> Numbers:
    """One row of each unaugmented source, to look its pristine image up by."""
    own = np.flatnonzero(~run.augmented)
    result: Numbers = own[np.unique(run.source[own], return_index=True)[1]]
    return result


def _outcome(votes: Votes) -> Numbers:
    """Position in `OUTCOMES`."""
    result: Numbers = np.array([1, 0, 2])[votes]  # votes are 0, 1 and -1, the last one
    return result


def _divide(a: npt.NDArray[np.number], b: npt.NDArray[np.number]) -> Reals:
    with np.errstate(divide="ignore", invalid="ignore"):
        result: Reals = np.where(b == 0, np.nan, np.divide(a, b))
    return result
