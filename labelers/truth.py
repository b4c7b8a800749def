"""Ground truth from a CSV table."""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from utility_gate.errors import TableError


@dataclass(frozen=True, slots=True)
class Truth:
    """One row of the ground-truth table."""

    path: str
    true_class: int


def read_truth(path: Path) -> list[Truth]:
    """Ground truth from a CSV with the columns `path` (below the image folder) and
    `class_index`; further columns are ignored.

    Raises:
        TableError: if the file, a column or a value is missing, or a path stands twice.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            missing = {"path", "class_index"} - set(reader.fieldnames or [])
            if missing:
                raise TableError(f"{path}: expected columns path,class_index; missing {missing}")
            rows = [_row(path, number, row) for number, row in enumerate(reader, 2)]
    except (OSError, UnicodeDecodeError) as error:
        raise TableError(f"{path}: expected a CSV table of ground truth: {error}") from error
    twice = sorted(name for name, times in Counter(r.path for r in rows).items() if times > 1)
    if twice:
        raise TableError(f"{path}: expected each image once, found twice: {twice[:5]}")
    if not rows:
        raise TableError(f"{path}: expected at least one image, found none")
    return rows


def _row(path: Path, number: int, row: dict[str, str]) -> Truth:
    try:
        return Truth(row["path"], int(row["class_index"]))
    except (TypeError, ValueError) as error:
        raise TableError(
            f"{path}: line {number}: expected an integer class_index, got {row['class_index']!r}"
        ) from error


def check_classes(truth: list[Truth], network: str, classes: int) -> None:
    """Refuse, before anything is computed, a class that a network does not have.

    Raises:
        TableError: naming the first such image.
    """
    for row in truth:
        check_class(row.path, row.true_class, network, classes)


def check_class(path: str, true_class: int, network: str, classes: int) -> None:
    """Refuse a class that a network does not have.

    Raises:
        TableError: naming the image.
    """
    if not 0 <= true_class < classes:
        raise TableError(
            f"{path}: expected a class index in 0..{classes - 1} for {network}, got {true_class}"
        )
