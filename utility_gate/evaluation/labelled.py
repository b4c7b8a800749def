"""Predictors and trivial gates on labelled copies: Tables I and II, from task to task (section
V.C), and kind of degradation by kind."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from utility_gate.errors import TableError
from utility_gate.evaluation.copies import Scores
from utility_gate.evaluation.gates import BRISQUE, PREDICTOR_THRESHOLD, QUALITY, confidence_name
from utility_gate.evaluation.resample import Resamples, Value, divide, resample
from utility_gate.evaluation.results import Against, GateResult, KindResult, SetResult
from utility_gate.evaluation.scores import (
    Flags,
    Floats,
    Labels,
    Ranking,
    auroc,
    balanced_accuracy,
    best_threshold,
)
from utility_gate.sides import Shares, Side, side_of, task_of
from utility_gate.split import unit_hash
from utility_gate.statistics import BOUNDS, Interval, to_interval
from utility_gate.tables import read_labels, read_metadata
from utility_gate.types import Copy, Label

BRISQUE_COPIES = 500
"""Training copies at most on which BRISQUE's threshold is chosen, half of each class."""


@dataclass(frozen=True)
class LabelledTable:
    """The decided copies of one label table: those to choose the trivial gates' thresholds on, and
    the held-out ones to measure on. Augmented sources are never measured on."""

    path: Path
    task: str
    networks: tuple[str, ...]
    known: tuple[Label, ...]
    held_out: tuple[Label, ...]
    undecided: int

    @cached_property
    def known_labels(self) -> Labels:
        """The labels of `known`."""
        return np.array([copy.label for copy in self.known], np.int64)

    @cached_property
    def labels(self) -> Labels:
        """The labels of `held_out`."""
        return np.array([copy.label for copy in self.held_out], np.int64)

    @cached_property
    def folders(self) -> npt.NDArray[np.str_]:
        """The source sets of `held_out`: the first part of each path, "." for none."""
        return np.array([c.source.split("/")[0] if "/" in c.source else "." for c in self.held_out])

    @cached_property
    def kinds(self) -> npt.NDArray[np.str_]:
        """The kinds of degradation of `held_out`."""
        return np.array([kind_of(copy) for copy in self.held_out])

    @cached_property
    def resamples(self) -> Resamples:
        """The same sets of held-out sources for every number of this table."""
        return resample([copy.source for copy in self.held_out], self.labels)

    @property
    def teaches(self) -> bool:
        """Whether thresholds can be chosen on its training side."""
        return {0, 1} <= {copy.label for copy in self.known}

    @property
    def for_brisque(self) -> list[Label]:
        """The training copies on which BRISQUE's threshold is chosen, drawn by their content."""
        drawn: list[Label] = []
        for wanted in (0, 1):
            its = [copy for copy in self.known if copy.label == wanted]
            its.sort(key=lambda copy: unit_hash("brisque", copy.image_digest))
            drawn += its[: BRISQUE_COPIES // 2]
        return drawn


@dataclass(frozen=True, slots=True, eq=False)
class Gate:
    """One gate on a table's held-out copies: its scores (N,), and its threshold on them."""

    name: str
    scores: Floats
    threshold: float
    resaved: Floats | None = None

    @property
    def useful(self) -> Flags:
        """What it calls useful, (N,)."""
        return self.scores >= self.threshold


def read_table(path: Path, both: Sequence[Side] = ("train", "test")) -> LabelledTable:
    """The decided copies of a label table; on the sides `both` there must be either class.

    Raises:
        TableError: if the table cannot be used, holds no held-out copy or lacks a class.
    """
    known: dict[tuple[str, ...], Label] = {}
    held_out: dict[tuple[str, ...], Label] = {}
    undecided = 0
    for label in read_labels(path):
        testing = side_of(label, Shares()) == "test"
        if testing and label.augmentation:
            continue
        if label.label is None:
            undecided += testing
            continue
        copy = (label.source, label.augmentation, label.degradation, label.parameters)
        (held_out if testing else known).setdefault(copy, label)
    for side, copies in (("train", known), ("test", held_out)):
        classes = {copy.label for copy in copies.values()}
        if side in both and not {0, 1} <= classes:
            raise TableError(
                f"{path}: expected useful and non-useful copies on the {side} side, got only "
                f"{sorted(map(str, classes))}; label more images"
            )
    if not held_out and tuple(both) != ("train",):
        raise TableError(f"{path}: expected decided copies of held-out sources, got none")
    return LabelledTable(
        path=path,
        task=task_of(path),
        networks=tuple(read_metadata(path).get("voters", ())),
        known=tuple(known.values()),
        held_out=tuple(held_out.values()),
        undecided=undecided,
    )


def kind_of(copy: Label) -> str:
    """The kind of a copy's degradation: its name, the names of a chain's steps, and how a JPEG is
    sampled where that is not 4:2:0."""
    parameters = json.loads(copy.parameters)
    if copy.degradation == "chain":
        return " + ".join(str(step["kind"]) for step in parameters["steps"])
    sampling = parameters.get("subsampling", "4:2:0")
    return copy.degradation if sampling == "4:2:0" else f"{copy.degradation} {sampling}"


def trivial_gates(
    table: LabelledTable,
    teacher: LabelledTable,
    scores: Scores,
    confidence: Mapping[str, float] | None,
    reference: str | None,
    *,
    brisque: bool,
    resaved: bool,
) -> list[Gate]:
    """The trivial gates on the held-out copies of `table`, their thresholds the best ones for the
    training side of `teacher`. Gate (b) is left out where the reference saw none of the copies.

    Raises:
        TableError: if the reference saw some of the copies.
    """
    test = table.held_out
    threshold = best_threshold(scores.of(teacher.known, "quality"), teacher.known_labels)
    again = scores.of(test, "quality", resaved=True) if resaved else None
    gates = [Gate(QUALITY, scores.of(test, "quality"), threshold, again)]
    if confidence is not None and reference is not None:
        seen = look_up(confidence, test, reference)
        taught = look_up(confidence, teacher.known, reference)
        if seen is not None and taught is not None:
            threshold = best_threshold(taught, teacher.known_labels)
            gates.append(Gate(confidence_name(reference), seen, threshold))
    if brisque:
        drawn = teacher.for_brisque
        taught = scores.of(drawn, "brisque")
        threshold = best_threshold(taught, np.array([copy.label for copy in drawn], np.int64))
        gates.append(Gate(BRISQUE, scores.of(test, "brisque"), threshold))
    return gates


def look_up(
    confidence: Mapping[str, float], copies: Sequence[Copy], reference: str
) -> Floats | None:
    """What the reference was sure of, (N,), by each copy's bytes; None if it saw none of them.

    Raises:
        TableError: if it saw only some.
    """
    missing = [copy for copy in copies if copy.image_digest not in confidence]
    if len(missing) == len(copies):
        return None
    if missing:
        raise TableError(f"{reference} observed no copy of {missing[0].source} with these bytes")
    return np.array([confidence[copy.image_digest] for copy in copies])


def predictor_gate(
    name: str, key: str, table: LabelledTable, scores: Scores, *, resaved: bool
) -> Gate:
    """A predictor, whose scores are `key`'s, on the held-out copies of a table."""
    again = scores.of(table.held_out, key, resaved=True) if resaved else None
    return Gate(name, scores.of(table.held_out, key), PREDICTOR_THRESHOLD, again)


def measure(gate: Gate, table: LabelledTable) -> GateResult:
    """One gate on a table that has both classes held out."""
    labels, resamples = table.labels, table.resamples
    ranking = Ranking(gate.scores, labels)
    areas = np.concatenate([ranking.auroc(rows) for rows in resamples.rows()])
    again = None
    if gate.resaved is not None:
        again = balanced_accuracy(gate.resaved >= gate.threshold, labels)
    by_set = {}
    for folder in np.unique(table.folders):
        rows = table.folders == folder
        useful = int(labels[rows].sum())
        if 0 < useful < rows.sum():
            by_set[str(folder)] = SetResult(
                useful=useful,
                non_useful=int(rows.sum()) - useful,
                balanced_accuracy=balanced_accuracy(gate.useful[rows], labels[rows]),
                auroc=auroc(gate.scores[rows], labels[rows]),
            )
    return GateResult(
        name=gate.name,
        threshold=gate.threshold,
        balanced_accuracy=to_interval(*accuracies(gate, table)),
        auroc=to_interval(float(ranking.auroc(np.ones((1, len(labels))))[0]), areas),
        resaved_balanced_accuracy=again,
        by_set=by_set,
        by_kind=measure_kinds(gate, table),
    )


def measure_kinds(gate: Gate, table: LabelledTable) -> dict[str, KindResult]:
    """One gate on every kind of degradation that a table's held-out side has."""
    found = {}
    for kind in np.unique(table.kinds):
        rows = table.kinds == kind
        labels, useful, scores = table.labels[rows], gate.useful[rows], gate.scores[rows]
        both = 0 < labels.sum() < len(labels)
        found[str(kind)] = KindResult(
            useful=int(labels.sum()),
            non_useful=int((1 - labels).sum()),
            useful_recall=float(useful[labels == 1].mean()) if labels.any() else None,
            non_useful_recall=float((~useful[labels == 0]).mean()) if not labels.all() else None,
            balanced_accuracy=balanced_accuracy(useful, labels) if both else None,
            auroc=auroc(scores, labels) if both else None,
        )
    return found


def accuracies(gate: Gate, table: LabelledTable) -> Value:
    """A gate's balanced accuracy, and the same of every resampled set, (D,)."""
    useful, labels, sets = gate.useful, table.labels, table.resamples
    recalls = [
        divide(sets.sums(right & side), sets.sums(side))
        for right, side in ((useful, labels == 1), (~useful, labels == 0))
    ]
    return balanced_accuracy(useful, labels), (recalls[0] + recalls[1]) / 2


def against(predictor: Gate, trivial: Sequence[Gate], table: LabelledTable) -> Against:
    """The predictor's error over the better trivial gate's, with a paired interval."""
    found = {gate.name: accuracies(gate, table) for gate in trivial}
    best = max(found, key=lambda name: found[name][0])
    (own, own_sets), (other, other_sets) = accuracies(predictor, table), found[best]
    ratio = divide(np.array([1 - own]), np.array([1 - other]))[0]
    return Against(best, _ratio_interval(float(ratio), 1 - own_sets, 1 - other_sets))


def _ratio_interval(ratio: float, errors: Floats, others: Floats) -> Interval:
    """A ratio of errors with its bounds. Of sets on which the other makes none it is unbounded, and
    that counts; of sets on which neither does there is none."""
    ratios = divide(errors, others)
    ratios[(others <= 0) & (errors > 0)] = np.inf
    known = ratios[~np.isnan(ratios)]
    if np.isfinite(known).all():
        return to_interval(ratio, known)
    low, high = np.quantile(known, BOUNDS, method="inverted_cdf")
    return Interval(ratio, float(low), float(high))
