"""Labelled copies by side: which sources teach, which stop and calibrate, which bound risks,
which test. Copies are made again from their sources and checked against the tables."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from utility_gate.differences import differences
from utility_gate.errors import TableError
from utility_gate.remake import remake_source
from utility_gate.split import TEST_FRACTION, unit_hash
from utility_gate.tables import read_labels, read_metadata
from utility_gate.types import Label

Targets = Literal["unanimous", "votes", "eq2"]
Side = Literal["train", "validation", "calibration", "test"]

SIDES: tuple[Side, ...] = ("train", "validation", "calibration", "test")


@dataclass(frozen=True, slots=True)
class Shares:
    """Of the sources that are not held out for testing: which share stops and calibrates
    (`validation`), and which chooses thresholds with a guarantee (`calibration`)."""

    validation: float = 0.0
    calibration: float = 0.0


@dataclass(frozen=True, slots=True)
class LabelledRow:
    """A degraded copy's label; `target` in [0, 1] is what training aims at, `task` what the
    label's networks do ("classification" or "detection")."""

    label: Label
    target: float
    task: str = "classification"


@dataclass(frozen=True, slots=True)
class LabelledCopy:
    """The same with the encoded copy itself."""

    label: Label
    data: bytes
    target: float
    task: str = "classification"


@dataclass(frozen=True, slots=True)
class Sides:
    """The copies to learn from, to stop and calibrate by, to bound risks by, and to test on; no
    source is in two."""

    train: list[LabelledCopy] = field(default_factory=list)
    validation: list[LabelledCopy] = field(default_factory=list)
    calibration: list[LabelledCopy] = field(default_factory=list)
    test: list[LabelledCopy] = field(default_factory=list)

    def of(self, side: Side) -> list[LabelledCopy]:
        """The copies of one side."""
        copies: list[LabelledCopy] = getattr(self, side)
        return copies


def target_of(label: Label, targets: Targets) -> float | None:
    """What training aims at for one copy; None leaves it out.

    "unanimous": the label, decided copies alone (the paper). "votes": undecided copies with at
    least one vote too, at 1/2 + (useful - non-useful votes) / (2 networks). "eq2": the continuous
    utility (Eq. 2) of every copy that has one, decided ones at their label.
    """
    if label.label is not None:
        return float(label.label)
    if targets == "eq2":
        return None if label.utility is None else min(1.0, max(0.0, label.utility))
    if targets == "unanimous" or label.useful_votes + label.non_useful_votes == 0:
        return None
    return 0.5 + (label.useful_votes - label.non_useful_votes) / (2 * label.networks)


def side_of(label: Label, shares: Shares) -> Side:
    """The side of a label's source, by its content alone."""
    if label.split == "test":
        return "test"
    at = unit_hash("validation", label.source_digest)
    if at < shares.validation:
        return "validation"
    return "calibration" if at < shares.validation + shares.calibration else "train"


def load_sides(
    tables: Sequence[Path],
    images: Path,
    targets: Targets,
    shares: Shares,
    only: Sequence[Side] = SIDES,
) -> Sides:
    """The labelled copies of one or more tables, made again from the sources below `images`, on
    the sides that are asked for (`only`).

    Tables of classifiers and of detectors may be mixed; a copy that both judged counts twice,
    with each one's label. Of each task further tables may label other copies (more qualities,
    other encodings) or other sources (also with the pristine image as the reference) by the same
    networks and rule. They add to training alone, as do augmented sources: all other sides hold
    the decided copies of each task's first table, so that calibration and measurement keep its
    mix and its reference.

    Raises:
        TableError: if the tables disagree, a source is missing or other than the tables', a copy
            comes out with other bytes (another JPEG encoder), or a side lacks one of the classes.
    """
    by_source: dict[str, list[LabelledRow]] = defaultdict(list)
    for row in choose_rows(tables, targets, shares, only):
        by_source[row.label.source].append(row)
    sides = Sides()
    with ThreadPoolExecutor() as pool:
        for copies in pool.map(lambda item: _remake(images, item[0], item[1]), by_source.items()):
            for copy in copies:
                sides.of(side_of(copy.label, shares)).append(copy)
    wanted = {"validation": shares.validation > 0, "calibration": shares.calibration > 0}
    for side in SIDES:
        if side in only and wanted.get(side, True):
            check_classes(sides.of(side), side, tables)
    return sides


def choose_rows(
    tables: Sequence[Path], targets: Targets, shares: Shares, only: Sequence[Side] = SIDES
) -> list[LabelledRow]:
    """The labels that `load_sides` makes copies of; a copy in two tables of one task counts once,
    with the first label.

    Raises:
        TableError: if a table cannot be read, or the tables disagree.
    """
    _check_agreement(tables)
    first = _first_of_each_task(tables)
    rows: dict[tuple[str, ...], LabelledRow] = {}
    for table in tables:
        task = task_of(table)
        for label in read_labels(table):
            side = side_of(label, shares)
            held_out = side != "train"
            # Augmented sources were chosen by their labels: to learn from, not to measure by.
            if side not in only or (held_out and (table != first[task] or label.augmentation)):
                continue
            target = target_of(label, "unanimous" if held_out else targets)
            if target is not None:
                copy = (label.source, label.augmentation, label.degradation, label.parameters)
                rows.setdefault((task, *copy), LabelledRow(label, target, task))
    return list(rows.values())


def count_labels(tables: Sequence[Path], shares: Shares) -> dict[str, dict[str, int]]:
    """Sources and copies by side and label in each task's first table, undecided ones included."""
    counts: dict[str, Counter[str]] = {side: Counter() for side in SIDES}
    sources: dict[str, set[str]] = {side: set() for side in SIDES}
    names = {1: "useful", 0: "non_useful", None: "undecided"}
    for table in _first_of_each_task(tables).values():
        for label in read_labels(table):
            side = side_of(label, shares)
            if label.augmentation and side != "train":
                continue
            counts[side][names[label.label]] += 1
            sources[side].add(label.source)
    return {
        side: {
            "sources": len(sources[side]),
            **{name: counts[side][name] for name in names.values()},
        }
        for side in SIDES
        if sources[side]
    }


def task_of(table: Path) -> str:
    """What a table's networks do: "classification" or "detection"."""
    return str(read_metadata(table).get("task", "classification"))


def _first_of_each_task(tables: Sequence[Path]) -> dict[str, Path]:
    first: dict[str, Path] = {}
    for table in tables:
        first.setdefault(task_of(table), table)
    return first


def _check_agreement(tables: Sequence[Path]) -> None:
    """Labels of different networks or rules mean different things, and of a source that one table
    holds out another must not teach."""
    shares = {table: read_metadata(table).get("test_fraction", TEST_FRACTION) for table in tables}
    if len(set(shares.values())) > 1:
        raise TableError(
            "expected tables with one test_fraction, got "
            + ", ".join(f"{share:g} in {table}" for table, share in shares.items())
        )
    for task, first in _first_of_each_task(tables).items():
        expected = _meaning(read_metadata(first))
        for table in (other for other in tables if task_of(other) == task):
            meaning = _meaning(read_metadata(table))
            unlike = differences(expected, meaning, known_to_both=True)
            if meaning["voters"].keys() != expected["voters"].keys():
                unlike = [f"voters: {sorted(expected['voters'])} -> {sorted(meaning['voters'])}"]
            if unlike:
                raise TableError(
                    f"{table}: expected labels made as in {first}, got {'; '.join(unlike)}"
                )


def _meaning(metadata: dict[str, Any]) -> dict[str, Any]:
    networks = metadata.get("networks", {})
    temperatures = metadata.get("config", {}).get("temperature", {})
    return {
        "voters": {name: networks.get(name) for name in metadata.get("voters", [])},
        "temperature": {name: temperatures.get(name, 1.0) for name in metadata.get("voters", [])},
        **{key: metadata[key] for key in ("task", "rule", "test_fraction") if key in metadata},
    }


def check_classes(
    rows: Sequence[LabelledCopy | LabelledRow], side: Side, tables: Sequence[Path]
) -> None:
    """Raise TableError unless the copies of a side are useful ones and non-useful ones."""
    classes = {row.label.label for row in rows}
    if not {0, 1} <= classes:
        raise TableError(
            f"{', '.join(map(str, tables))}: expected useful and non-useful copies on the "
            f"{side} side, got only {sorted(map(str, classes))}; label more images"
        )


def _remake(images: Path, source: str, rows: list[LabelledRow]) -> list[LabelledCopy]:
    made = remake_source(images, source, [row.label for row in rows])
    return [
        LabelledCopy(row.label, data, row.target, row.task)
        for row, data in zip(rows, made, strict=True)
    ]
