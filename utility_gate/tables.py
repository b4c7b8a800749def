"""Observations and labels as Parquet; the only meeting point of labelling and training."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from utility_gate.errors import TableError
from utility_gate.types import Label, Observation

_TEXT = pa.dictionary(pa.int32(), pa.string())

OBSERVATION_SCHEMA = pa.schema(
    [
        pa.field("source", _TEXT, nullable=False),
        pa.field("source_digest", _TEXT, nullable=False),
        pa.field("degradation", _TEXT, nullable=False),
        pa.field("quality", pa.int16()),
        pa.field("image_digest", pa.string(), nullable=False),
        pa.field("network", _TEXT, nullable=False),
        pa.field("network_digest", _TEXT, nullable=False),
        pa.field("true_class", pa.int32(), nullable=False),
        pa.field("predicted_class", pa.int32(), nullable=False),
        pa.field("top1", pa.float64(), nullable=False),
        pa.field("ccsp", pa.float64(), nullable=False),
    ]
)

LABEL_SCHEMA = pa.schema(
    [
        pa.field("source", _TEXT, nullable=False),
        pa.field("source_digest", _TEXT, nullable=False),
        pa.field("split", _TEXT, nullable=False),
        pa.field("degradation", _TEXT, nullable=False),
        pa.field("quality", pa.int16(), nullable=False),
        pa.field("image_digest", pa.string(), nullable=False),
        pa.field("label", pa.int8()),
        pa.field("useful_votes", pa.int16(), nullable=False),
        pa.field("non_useful_votes", pa.int16(), nullable=False),
        pa.field("networks", pa.int16(), nullable=False),
    ]
)

_METADATA_KEY = b"utility_gate"

Row = TypeVar("Row")


def write_observations(
    rows: Iterable[Observation], path: Path, metadata: Mapping[str, Any]
) -> None:
    """Write observations; `metadata` (JSON) says how they were made. Atomic."""
    _write([dataclasses.asdict(row) for row in rows], OBSERVATION_SCHEMA, path, metadata)


def write_labels(rows: Iterable[Label], path: Path, metadata: Mapping[str, Any]) -> None:
    """Write labels; `metadata` (JSON) says how they were made. Atomic."""
    _write([dataclasses.asdict(row) for row in rows], LABEL_SCHEMA, path, metadata)


def read_observations(path: Path) -> list[Observation]:
    """Read a table of observations.

    Raises:
        TableError: if it is missing, damaged, has other columns or impossible values.
    """
    return _read(path, OBSERVATION_SCHEMA, Observation)


def read_labels(path: Path) -> list[Label]:
    """Read a table of labels.

    Raises:
        TableError: if it is missing, damaged, has other columns or impossible values.
    """
    return _read(path, LABEL_SCHEMA, Label)


def read_metadata(path: Path) -> dict[str, Any]:
    """How a table was made, as its writer recorded it; empty if it was not recorded.

    Raises:
        TableError: if the file is missing or no Parquet.
    """
    try:
        stored = (pq.read_schema(path).metadata or {}).get(_METADATA_KEY, b"{}")
    except (OSError, pa.ArrowException) as error:
        raise TableError(f"{path}: expected a Parquet table: {error}") from error
    result: dict[str, Any] = json.loads(stored)
    return result


def _write(
    rows: list[dict[str, Any]], schema: pa.Schema, path: Path, metadata: Mapping[str, Any]
) -> None:
    text = json.dumps(metadata, sort_keys=True).encode()
    table = pa.Table.from_pylist(rows, schema.with_metadata({_METADATA_KEY: text}))
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, partial, compression="zstd")
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise TableError(f"{path}: could not be written: {error}") from error


def _read(path: Path, schema: pa.Schema, kind: type[Row]) -> list[Row]:
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise TableError(f"{path}: expected a Parquet table: {error}") from error
    missing = [name for name in schema.names if name not in table.column_names]
    if missing:
        raise TableError(f"{path}: expected the columns {schema.names}, missing {missing}")
    try:
        return [kind(**row) for row in table.select(schema.names).to_pylist()]
    except ValueError as error:
        raise TableError(f"{path}: holds an impossible value: {error}") from error
