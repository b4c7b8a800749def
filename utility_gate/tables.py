"""Observations and labels as Parquet; the only meeting point of labelling and training."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from utility_gate.errors import TableError
from utility_gate.files import whole_file
from utility_gate.types import Label

_COPY = [
    pa.field("source", pa.string(), nullable=False),
    pa.field("source_digest", pa.string(), nullable=False),
    pa.field("augmentation", pa.string(), nullable=False),
    pa.field("degradation", pa.string(), nullable=False),
    pa.field("parameters", pa.string(), nullable=False),
    pa.field("quality", pa.int16()),
    pa.field("image_digest", pa.string(), nullable=False),
]

_NETWORK = [
    pa.field("network", pa.string(), nullable=False),
    pa.field("network_digest", pa.string(), nullable=False),
]

CLASSIFICATION_SCHEMA = pa.schema(
    [
        *_COPY,
        *_NETWORK,
        pa.field("true_class", pa.int32(), nullable=False),
        pa.field("predicted_class", pa.int32(), nullable=False),
        pa.field("top1", pa.float64(), nullable=False),
        pa.field("ccsp", pa.float64(), nullable=False),
    ]
)

DETECTION_SCHEMA = pa.schema(
    [
        *_COPY,
        *_NETWORK,
        pa.field("reference_objects", pa.int32(), nullable=False),
        pa.field("boxes", pa.list_(pa.list_(pa.float32())), nullable=False),
        pa.field("classes", pa.list_(pa.int32()), nullable=False),
        pa.field("scores", pa.list_(pa.float32()), nullable=False),
        pa.field("objects", pa.list_(pa.int32()), nullable=False),
        pa.field("ious", pa.list_(pa.float32()), nullable=False),
    ]
)

OBSERVATION_SCHEMAS = {"classification": CLASSIFICATION_SCHEMA, "detection": DETECTION_SCHEMA}
"""Columns of an observation table, by task."""

LABEL_SCHEMA = pa.schema(
    [
        *_COPY,
        pa.field("split", pa.string(), nullable=False),
        pa.field("label", pa.int8()),
        pa.field("utility", pa.float64()),
        pa.field("useful_votes", pa.int16(), nullable=False),
        pa.field("non_useful_votes", pa.int16(), nullable=False),
        pa.field("networks", pa.int16(), nullable=False),
    ]
)

_GROUP_ROWS = 65_536
_METADATA_KEY = b"utility_gate"
_PROBABILITIES = ("top1", "ccsp", "scores", "ious")
_REPEATING = ["source", "source_digest", "augmentation", "degradation", "parameters", "network"]


def to_table(rows: Iterable[Any], schema: pa.Schema) -> pa.Table:
    """Frozen values (`Observation`, `DetectionObservation`, `Label`) as a table, in order."""
    return pa.Table.from_pylist([dataclasses.asdict(row) for row in rows], schema)


def write_table(table: pa.Table, path: Path, metadata: Mapping[str, Any]) -> None:
    """Write one table; see `write_tables`."""
    write_tables([table], table.schema, path, metadata)


def write_tables(
    tables: Iterable[pa.Table], schema: pa.Schema, path: Path, metadata: Mapping[str, Any]
) -> None:
    """Write tables one after the other into one file, whole or not at all; `metadata` (JSON) says
    how they were made.

    The bytes depend on the rows, the metadata and pyarrow's version alone, not on how the rows
    are cut into tables. Every page carries a checksum. When this returns the file is on the
    disk, not in a cache.

    Raises:
        TableError: if it cannot be written; nothing is left of it.
    """
    text = json.dumps(metadata, sort_keys=True).encode()
    try:
        with (
            whole_file(path) as partial,
            pq.ParquetWriter(
                partial,
                schema.with_metadata({_METADATA_KEY: text}),
                compression="zstd",
                write_page_checksum=True,
            ) as writer,
        ):
            for group in _regroup(tables, schema):
                writer.write_table(group, row_group_size=_GROUP_ROWS)
    except OSError as error:
        raise TableError(
            f"{path}: could not be written: {error}; nothing that was written before is lost"
        ) from error


def write_labels(rows: Iterable[Label], path: Path, metadata: Mapping[str, Any]) -> None:
    """Write labels; see `write_table`."""
    write_table(to_table(rows, LABEL_SCHEMA), path, metadata)


def read_table(path: Path, schema: pa.Schema, columns: Sequence[str] | None = None) -> pa.Table:
    """The columns of `schema` (or those of them named), texts that repeat as dictionaries.

    Raises:
        TableError: if the file is missing or damaged (checksums are verified), lacks a column or
            holds an impossible probability.
    """
    try:
        missing = set(schema.names) - set(pq.read_schema(path).names)
        if missing:
            raise TableError(
                f"{path}: expected the columns {schema.names}, missing {sorted(missing)}"
            )
        file = pq.ParquetFile(
            path,
            read_dictionary=[name for name in _REPEATING if name in schema.names],
            page_checksum_verification=True,
            memory_map=True,
        )
        table = file.read(list(columns or schema.names))
    except (OSError, pa.ArrowException) as error:
        raise TableError(f"{path}: expected a Parquet table: {error}") from error
    for name in table.column_names:
        if not schema.field(name).nullable and table[name].null_count:
            raise TableError(f"{path}: holds an impossible value: {name} null")
        if not _is_alike(table[name].type, schema.field(name).type):
            raise TableError(
                f"{path}: expected {name} as {schema.field(name).type}, got {table[name].type}"
            )
    for name in set(_PROBABILITIES) & set(table.column_names):
        _check_probabilities(table[name], name, path)
    return table


def read_observations(path: Path, columns: Sequence[str] | None = None) -> tuple[pa.Table, str]:
    """A table of observations and its task, "classification" or "detection".

    Raises:
        TableError: as `read_table`.
    """
    task = read_metadata(path).get("task", "classification")
    if task not in OBSERVATION_SCHEMAS:
        raise TableError(f"{path}: expected task {' or '.join(OBSERVATION_SCHEMAS)}, got {task!r}")
    return read_table(path, OBSERVATION_SCHEMAS[task], columns), task


def read_labels(path: Path) -> list[Label]:
    """Read a table of labels.

    Raises:
        TableError: as `read_table`, or if a label is none of 0, 1 and null.
    """
    rows = read_table(path, LABEL_SCHEMA).select(LABEL_SCHEMA.names).to_pylist()
    try:
        return [Label(**row) for row in rows]
    except ValueError as error:
        raise TableError(f"{path}: holds an impossible value: {error}") from error


def read_metadata(path: Path) -> dict[str, Any]:
    """How a table was made, as its writer recorded it; empty if it was not recorded.

    Raises:
        TableError: if the file is missing or no Parquet.
    """
    try:
        stored = (pq.read_schema(path).metadata or {}).get(_METADATA_KEY, b"{}")
    except (OSError, pa.ArrowException) as error:
        raise TableError(f"{path}: expected a Parquet table: {error}") from error
    try:
        result: dict[str, Any] = json.loads(stored)
    except ValueError as error:
        raise TableError(f"{path}: expected JSON metadata: {error}") from error
    return result


def _regroup(tables: Iterable[pa.Table], schema: pa.Schema) -> Iterator[pa.Table]:
    """The same rows in tables of `_GROUP_ROWS`, the last one shorter."""
    waiting: list[pa.Table] = []
    for table in tables:
        waiting.append(table.cast(schema))
        while sum(map(len, waiting)) >= _GROUP_ROWS:
            together = pa.concat_tables(waiting).combine_chunks()
            yield together[:_GROUP_ROWS]
            waiting = [together[_GROUP_ROWS:]]
    yield pa.concat_tables(waiting).combine_chunks() if waiting else schema.empty_table()


def _is_alike(found: pa.DataType, expected: pa.DataType) -> bool:
    if pa.types.is_dictionary(found):
        found = found.value_type
    return bool(found.equals(expected) or (pa.types.is_list(expected) and pa.types.is_list(found)))


def _check_probabilities(column: pa.ChunkedArray, name: str, path: Path) -> None:
    values = pc.list_flatten(column) if pa.types.is_list(column.type) else column
    bad = pc.invert(pc.and_(pc.greater_equal(values, 0), pc.less_equal(values, 1)))  # NaN too
    if pc.any(bad).as_py():
        worst = pc.filter(values, bad)[0].as_py()
        raise TableError(
            f"{path}: holds an impossible value: expected {name} in [0, 1], got {worst}"
        )
