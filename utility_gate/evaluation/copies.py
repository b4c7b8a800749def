"""Copies made again, scored once each and forgotten: however many tables speak of a copy, every
predictor and gate looks at it once, and no more copies are in memory than threads at work."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from utility_gate.degrade import OWN_COPIES, Jpeg, decode_copy
from utility_gate.evaluation.scores import Floats
from utility_gate.predictor import UtilityPredictor
from utility_gate.remake import remake_source
from utility_gate.types import Copy, Label

RESAVED_QUALITY = 95
"""The JPEG quality at which copies are saved once more, as happens to photographs on their way."""

Scorer = Callable[[bytes], float]
"""An encoded image to a number, higher where it is held for useful; called from several threads."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Ask:
    """One score of a copy: which scorer's, and whether of the copy saved once more."""

    scorer: str
    resaved: bool = False


class Plan:
    """Which scores of which copies are wanted; each is computed once."""

    def __init__(self) -> None:
        self._copies: dict[str, Label] = {}
        self._asks: dict[str, dict[Ask, None]] = defaultdict(dict)

    def add(self, copies: Iterable[Copy], *asks: Ask) -> None:
        """Want these scores of these copies, whatever was wanted before."""
        for copy in copies:
            self._copies.setdefault(copy.image_digest, _as_label(copy))
            self._asks[copy.image_digest].update(dict.fromkeys(asks))

    def by_source(self) -> list[list[tuple[Label, tuple[Ask, ...]]]]:
        """The copies of each source file, with what is wanted of them."""
        found: dict[tuple[str, str], list[tuple[Label, tuple[Ask, ...]]]] = defaultdict(list)
        for digest, label in self._copies.items():
            where = (label.source, label.source_digest)
            found[where].append((label, tuple(self._asks[digest])))
        return list(found.values())


class Scores:
    """Scores by scorer and copy."""

    def __init__(self, known: Mapping[tuple[str, Ask], float]) -> None:
        self._known = known

    def of(self, copies: Sequence[Copy], scorer: str, *, resaved: bool = False) -> Floats:
        """The scores (N,) of copies, in their order; they must have been planned."""
        ask = Ask(scorer, resaved)
        return np.array([self._known[copy.image_digest, ask] for copy in copies], np.float64)


def compute(
    plan: Plan,
    images: Sequence[Path],
    scorers: Mapping[str, Scorer],
    threads: int | None = None,
    progress: Progress = lambda _, __: None,
) -> Scores:
    """Make every planned copy again, from its source below one of the folders `images`, and score
    it, in `threads` threads (None: as many as Python thinks fit).

    Raises:
        TableError: if a source is missing or another file than the table's, or a copy comes out
            with other bytes.
    """
    groups = plan.by_source()

    def one(group: list[tuple[Label, tuple[Ask, ...]]]) -> list[tuple[tuple[str, Ask], float]]:
        return _score_source(_root(images, group[0][0].source), group, scorers)

    known: dict[tuple[str, Ask], float] = {}
    with ThreadPoolExecutor(threads) as pool:
        for number, found in enumerate(pool.map(one, groups), 1):
            known |= found
            progress(number, len(groups))
    return Scores(known)


def predictor_scorer(predictor: UtilityPredictor) -> Scorer:
    """The utility of an encoded image, by the predictor as it serves."""

    def judge(data: bytes) -> float:
        return predictor.look(data, OWN_COPIES).utility

    return judge


def _score_source(
    root: Path, group: list[tuple[Label, tuple[Ask, ...]]], scorers: Mapping[str, Scorer]
) -> list[tuple[tuple[str, Ask], float]]:
    labels = [label for label, _ in group]
    found = []
    for (label, asks), data in zip(
        group, remake_source(root, labels[0].source, labels), strict=True
    ):
        again = b""
        if any(ask.resaved for ask in asks):
            again = Jpeg(RESAVED_QUALITY).apply(decode_copy(data))
        for ask in asks:
            score = scorers[ask.scorer](again if ask.resaved else data)
            found.append(((label.image_digest, ask), score))
    return found


def _root(images: Sequence[Path], source: str) -> Path:
    """The folder that has a source; the first one if none has, where it will be missed."""
    return next((root for root in images if (root / source).is_file()), images[0])


def _as_label(copy: Copy) -> Label:
    """A copy as `remake_source` takes it; of what networks said of it nothing is needed there."""
    if isinstance(copy, Label):
        return copy
    return Label(
        **copy.fields(), split="test", label=None, utility=None, useful_votes=0,
        non_useful_votes=0, networks=0,
    )  # fmt: skip
