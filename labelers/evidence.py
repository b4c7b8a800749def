"""A table of observations, arranged by copy and network for the rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from labelers.rules import CcspRule, DetectionRule, Evidence, Rule
from utility_gate.degrade import PRISTINE
from utility_gate.errors import TableError

Rows = npt.NDArray[np.int64]

COPY_KEY = ("source", "augmentation", "degradation", "parameters")
"""What tells a copy from every other: its source, augmented or not, and how it was degraded."""

COLUMNS = {
    "classification": ["true_class", "predicted_class", "top1", "ccsp"],
    "detection": ["reference_objects", "scores", "objects", "ious"],
}
"""What the rules read of an observation table, by task, beside the copy and the network."""

COPY_COLUMNS = [*COPY_KEY, "source_digest", "quality", "image_digest", "network"]


@dataclass(frozen=True, slots=True)
class Grid:
    """Row numbers in the observation table, (copies, networks), of each degraded copy and of its
    pristine source, copies in the order in which they first appear."""

    degraded: Rows
    pristine: Rows


def arrange(table: pa.Table, networks: Sequence[str]) -> Grid:
    """Find each copy's observations by `networks`; others in the table are passed over.

    Raises:
        TableError: if a copy lacks an observation by a network or has two, or its source has no
            pristine one.
    """
    own = _column_of(table, networks)
    kept = np.flatnonzero(own >= 0)
    if not len(kept):
        raise TableError(f"expected observations by {', '.join(networks)}, found none")
    source = _codes(table, COPY_KEY[:2])[kept]
    copy, first = _by_appearance(_codes(table, COPY_KEY)[kept])
    rows = np.full((len(first), len(networks)), -1, np.int64)
    cells = copy * len(networks) + own[kept]
    _refuse_twice(cells, kept, table)
    rows.reshape(-1)[cells] = kept
    _refuse_missing(rows, kept[first], table, networks)
    is_pristine = _equals(table, "degradation", PRISTINE)[kept][first]
    pristine_of = np.full(int(source.max()) + 1, -1, np.int64)
    pristine_of[source[first[is_pristine]]] = np.flatnonzero(is_pristine)
    degraded = np.flatnonzero(~is_pristine)
    pristine = pristine_of[source[first[degraded]]]
    if (pristine < 0).any():
        orphan = _cell(table, "source", kept[first[degraded[pristine < 0][0]]])
        raise TableError(f"{orphan}: expected observations of the pristine image, found none")
    return Grid(rows[degraded], rows[pristine])


def gather(
    table: pa.Table, grid: Grid, rule: Rule, reference: str, reference_score: float
) -> Evidence:
    """What the rule judges by. With `reference` "pristine" a classifier that was less sure than
    `reference_score` of the pristine image has no reference.

    Raises:
        TableError: if the rule is for another task than the table's.
    """
    wanted = {CcspRule: "classification", DetectionRule: "detection"}[type(rule)]
    if not set(COLUMNS[wanted]) <= set(table.column_names):
        raise TableError(f"expected observations for {wanted}, got {table.column_names}")
    if isinstance(rule, DetectionRule):
        return _detection(table, grid, rule)
    correct = _numpy(table, "true_class") == _numpy(table, "predicted_class")
    ccsp = _numpy(table, "ccsp")
    judged = np.ones(grid.pristine.shape, bool)
    if reference == "pristine":
        judged = _numpy(table, "top1")[grid.pristine] >= reference_score
    return Evidence(
        judged=judged,
        found_pristine=correct[grid.pristine] & judged,
        found=correct[grid.degraded],
        phi_pristine=ccsp[grid.pristine],
        phi=ccsp[grid.degraded],
    )


def _detection(table: pa.Table, grid: Grid, rule: DetectionRule) -> Evidence:
    """`found` asks for an object that was found on both; phi is the highest score among
    detections of the right class and place."""
    row, scores, objects, ious = flatten(table)
    placed = (objects >= 0) & (ious >= np.float32(rule.iou))
    phi = np.zeros(len(table))
    np.maximum.at(phi, row[placed], scores[placed])
    sure = placed & (scores >= np.float32(rule.score))
    stride = max(int(objects.max(initial=0)) + 1, 1)
    found = np.unique(row[sure] * stride + objects[sure])
    # The pristine row that belongs to each degraded one: an object found there has its number.
    pristine_row = np.arange(len(table))
    pristine_row[grid.degraded] = grid.pristine
    on_both = found[np.isin(pristine_row[found // stride] * stride + found % stride, found)]
    has_any = np.zeros(len(table), bool)
    has_any[on_both // stride] = True
    return Evidence(
        judged=_numpy(table, "reference_objects")[grid.pristine] > 0,
        found_pristine=has_any[grid.pristine],
        found=has_any[grid.degraded],
        phi_pristine=phi[grid.pristine],
        phi=phi[grid.degraded],
    )


def flatten(table: pa.Table) -> tuple[Rows, Any, Any, Any]:
    """All detections of all rows: the row of each, its score, object and IoU."""
    scores, objects, ious = (table[name].combine_chunks() for name in ("scores", "objects", "ious"))
    row = pc.list_parent_indices(scores).to_numpy()
    return row, *(column.flatten().to_numpy() for column in (scores, objects, ious))


def _numpy(table: pa.Table, name: str) -> Any:
    return table[name].to_numpy()


def _dictionary(table: pa.Table, name: str) -> pa.DictionaryArray:
    column = table[name]
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    return column.unify_dictionaries().combine_chunks()


def _equals(table: pa.Table, name: str, value: str) -> npt.NDArray[np.bool_]:
    array = _dictionary(table, name)
    names = np.array(array.dictionary.to_pylist(), object)
    result: npt.NDArray[np.bool_] = (names == value)[array.indices.to_numpy()]
    return result


def _codes(table: pa.Table, names: Sequence[str]) -> Rows:
    """One number per row, equal where all of these columns are equal."""
    codes = np.zeros(len(table), np.int64)
    for name in names:
        array = _dictionary(table, name)
        codes = codes * len(array.dictionary) + array.indices.to_numpy()
        codes = np.unique(codes, return_inverse=True)[1]  # stay small, whatever the columns
    return codes


def _by_appearance(codes: Rows) -> tuple[Rows, Rows]:
    """Codes renumbered in the order in which they first appear, and where each does."""
    _, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return rank[inverse], first[order]


def _column_of(table: pa.Table, networks: Sequence[str]) -> Rows:
    array = _dictionary(table, "network")
    place = {name: number for number, name in enumerate(networks)}
    columns = np.array([place.get(n, -1) for n in array.dictionary.to_pylist()], np.int64)
    result: Rows = columns[array.indices.to_numpy()]
    return result


def _refuse_twice(cells: Rows, rows: Rows, table: pa.Table) -> None:
    unique, counts = np.unique(cells, return_counts=True)
    if (counts > 1).any():
        row = rows[np.flatnonzero(cells == unique[counts > 1][0])[1]]
        raise TableError(
            f"{_describe(table, row)} was observed twice by {_cell(table, 'network', row)}"
        )


def _refuse_missing(rows: Rows, first: Rows, table: pa.Table, networks: Sequence[str]) -> None:
    if (rows < 0).any():
        copy, column = np.argwhere(rows < 0)[0]
        raise TableError(f"{_describe(table, first[copy])} was not observed by {networks[column]}")


def _describe(table: pa.Table, row: int) -> str:
    name = _cell(table, "degradation", row)
    what = "the pristine image" if name == PRISTINE else f"{name} {_cell(table, 'parameters', row)}"
    return f"{_cell(table, 'source', row)}: {what}"


def _cell(table: pa.Table, name: str, row: int) -> str:
    return str(table[name][int(row)].as_py())
