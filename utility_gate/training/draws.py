"""Which copy is drawn when, and with which seed: by epoch and position alone, so that a run that
was resumed, or spread over several processes, draws what one uninterrupted process would."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from torch.utils.data import Sampler

Draw = tuple[int, int]
"""The number of a copy, and the seed of whatever is random about showing it this time."""


def balanced_weights(targets: Sequence[float]) -> npt.NDArray[np.float64]:
    """Chances (N,), in sum 1, to be drawn for copies with these targets in [0, 1].

    Copies aimed above 1/2 and copies aimed below it are drawn with weights such that what the
    former lie above and the latter lie below 1/2 is the same in sum. With hard labels that is
    one draw in two for each class. Copies at exactly 1/2 teach nothing and are not drawn.
    """
    lean = 2 * np.asarray(targets, np.float64) - 1
    useful, non_useful = lean.clip(0).sum(), (-lean).clip(0).sum()
    weights = np.where(lean > 0, 1 / useful, np.where(lean < 0, 1 / non_useful, 0.0))
    return np.asarray(weights / weights.sum())


class BalancedDraws(Sampler[Draw]):
    """An epoch of `samples` draws with replacement, balanced as `balanced_weights` says.

    Of several processes, number `rank` of `processes` takes every `processes`-th draw. Lightning
    calls `set_epoch` before each epoch.
    """

    def __init__(
        self,
        targets: Sequence[float],
        samples: int,
        seed: int,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        self.cumulative = np.cumsum(balanced_weights(targets))
        self.samples = samples
        self.seed, self.rank, self.processes, self.epoch = seed, rank, processes, 0

    def set_epoch(self, epoch: int) -> None:
        """The epoch that is drawn next, from 0."""
        self.epoch = epoch

    def __len__(self) -> int:
        # As many as every other process has, or the last ones would wait for ever.
        return self.samples // self.processes

    def __iter__(self) -> Iterator[Draw]:
        random = np.random.default_rng((self.seed, self.epoch))
        at = np.searchsorted(self.cumulative, random.random(self.samples), side="right")
        seeds = random.integers(2**63, size=self.samples)
        last = len(self.cumulative) - 1
        for number in range(self.rank, len(self) * self.processes, self.processes):
            yield int(min(at[number], last)), int(seeds[number])
