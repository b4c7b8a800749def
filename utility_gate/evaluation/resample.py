"""Sources drawn anew with all their copies: how far a number would move on other photographs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from utility_gate.evaluation.scores import Floats, Labels
from utility_gate.statistics import Interval, to_interval

DRAWS = 1000
"""Resampled sets of sources for an interval."""

Value = tuple[float, Floats]
"""A number, and the same of every resampled set, (D,)."""

_CHUNK = 4_000_000
"""Weights of copies held at a time."""


@dataclass(frozen=True, slots=True, eq=False)
class Resamples:
    """D sets of S sources. `owner` (N,) is the number of each copy's source, `weights` (D, S) how
    often each source is in a set. Every number that is computed of one `Resamples` is computed of
    the same sets, so that differences are paired."""

    owner: npt.NDArray[np.int64]
    weights: Floats

    @property
    def sources(self) -> int:
        """How many sources there are."""
        return int(self.weights.shape[1])

    def sums(self, values: npt.NDArray[np.generic]) -> Floats:
        """Sums (D,) of the copies' values (N,) over each set."""
        result: Floats = self.weights @ self.by_source(values)
        return result

    def by_source(self, values: npt.NDArray[np.generic]) -> Floats:
        """Sums (S,) of the copies' values (N,) by source."""
        return _count(self.owner, values, self.sources)

    def rows(self) -> Iterator[Floats]:
        """How often each copy is in each set, some sets at a time, (d, N)."""
        step = max(1, _CHUNK // max(len(self.owner), 1))
        for start in range(0, len(self.weights), step):
            yield self.weights[start : start + step][:, self.owner]

    def first(self, draws: int) -> Resamples:
        """The first so many sets alone."""
        return Resamples(self.owner, self.weights[:draws])


def resample(
    sources: Sequence[str], labels: Labels | None = None, *, draws: int = DRAWS, seed: int = 0
) -> Resamples:
    """Draw as many sources as there are, with replacement, `draws` times; `sources` (N,) names each
    copy's. With `labels` (N,) sets that lack a class are drawn again."""
    random = np.random.default_rng(seed)
    names, owner = np.unique(np.asarray(sources, np.str_), return_inverse=True)
    owner = owner.astype(np.int64)
    useful = others = np.ones(len(names))
    if labels is not None:
        useful = _count(owner, labels == 1, len(names))
        others = _count(owner, labels == 0, len(names))
    sets: list[Floats] = []
    while len(sets) < draws:
        drawn = random.integers(len(names), size=len(names))
        times = np.bincount(drawn, minlength=len(names)).astype(np.float64)
        if times @ useful > 0 and times @ others > 0:
            sets.append(times)
    return Resamples(owner, np.array(sets))


def _count(owner: npt.NDArray[np.int64], values: npt.NDArray[np.generic], count: int) -> Floats:
    return np.bincount(owner, values.astype(np.float64), count).astype(np.float64, copy=False)


def share(
    resamples: Resamples, of: npt.NDArray[np.generic], among: npt.NDArray[np.generic]
) -> Value:
    """The share of copies in `of` (N,) among those in `among` (N,), and the same of every set;
    `of` lies in `among`. NaN where there is none."""
    value = divide(np.array([np.sum(of)]), np.array([np.sum(among)]))[0]
    return float(value), divide(resamples.sums(of), resamples.sums(among))


def divide(one: npt.NDArray[np.generic], other: npt.NDArray[np.generic]) -> Floats:
    """Quotients; NaN where the divisor is not positive."""
    above, below = one.astype(np.float64), other.astype(np.float64)
    result: Floats = np.divide(above, below, out=np.full(above.shape, np.nan), where=below > 0)
    return result


def interval(pair: Value) -> Interval:
    """A value and the same of every set, as an interval."""
    return to_interval(*pair)


def combine(
    operation: Callable[[Floats, Floats], Floats],
    one: Value,
    other: Value,
) -> Interval:
    """A paired interval: `operation` of two values, and of the same two of every set."""
    value = operation(np.array([one[0]]), np.array([other[0]]))
    return to_interval(float(value[0]), operation(one[1], other[1]))


def difference(one: Value, other: Value) -> Interval:
    """`one` minus `other`, paired."""
    return combine(np.subtract, one, other)
