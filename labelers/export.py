"""Labels for those who read no Parquet: CSV, and WebDataset shards with the copies themselves."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import tarfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, count, groupby, islice
from pathlib import Path

from pyarrow import csv

from labelers.copies import suffix_of
from labelers.store import refuse_run_file
from utility_gate.errors import TableError
from utility_gate.files import whole_file
from utility_gate.remake import remake_source
from utility_gate.tables import LABEL_SCHEMA, read_labels, read_table
from utility_gate.types import Label

Sample = tuple[Label, bytes]


def export_csv(labels: Path, out: Path) -> int:
    """All labels as CSV, the columns as in the Parquet table, undecided ones with an empty label;
    returns the number of rows.

    Raises:
        TableError: if the table cannot be read or `out` not be written.
    """
    refuse_run_file(out)
    table = read_table(labels, LABEL_SCHEMA)
    try:
        with whole_file(out) as partial:
            csv.write_csv(table.cast(LABEL_SCHEMA), partial)
    except OSError as error:
        raise TableError(f"{out}: could not be written: {error}") from error
    return len(table)


def export_webdataset(
    labels: Path, images: Path, out: Path, shard_size: int = 1000, *, undecided: bool = False
) -> int:
    """Shards `<split>-000000.tar` of `shard_size` copies below `out`; returns how many copies.

    Each sample is the copy, encoded as it was labelled (made again from its source, checked
    against its SHA-256), `.cls` with the label and `.json` with the whole row. Undecided copies
    are left out unless asked for; their `.cls` is -1. The same table gives the same bytes.

    Raises:
        TableError: if the table, a source or the encoder is not what it was, or a shard cannot
            be written; no half shard is left.
    """
    if next(out.glob("*.tar"), None) is not None:
        raise TableError(f"{out}: expected a folder without shards, found some; give another --out")
    rows = [row for row in read_labels(labels) if undecided or row.label is not None]
    for split in ("train", "test"):
        samples = enumerate(_samples([row for row in rows if row.split == split], images))
        for number in count():
            first = next(samples, None)
            if first is None:
                break
            shard = chain([first], islice(samples, shard_size - 1))
            _write_shard(shard, out / f"{split}-{number:06d}.tar")
    return len(rows)


def _samples(rows: list[Label], images: Path) -> Iterator[Sample]:
    by_source = ((source, list(own)) for source, own in groupby(rows, lambda row: row.source))
    with ThreadPoolExecutor() as pool:
        # A few sources at a time: all copies of a large set do not fit into memory.
        while some := list(islice(by_source, 2 * (os.cpu_count() or 1))):
            made = pool.map(lambda item: list(remake_source(images, *item)), some)
            for (_, own), copies in zip(some, made, strict=True):
                yield from zip(own, copies, strict=True)


def _write_shard(samples: Iterable[tuple[int, Sample]], path: Path) -> None:
    try:
        with (
            whole_file(path) as partial,
            tarfile.open(partial, "w", format=tarfile.USTAR_FORMAT) as tar,
        ):
            for number, (label, copy) in samples:
                row = json.dumps(dataclasses.asdict(label), sort_keys=True)
                number_text = "-1" if label.label is None else str(label.label)
                _add(tar, f"{number:09d}.{suffix_of(copy)}", copy)
                _add(tar, f"{number:09d}.cls", number_text.encode())
                _add(tar, f"{number:09d}.json", row.encode())
    except OSError as error:
        raise TableError(f"{path}: the shard could not be written: {error}") from error


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)  # no time, no owner: the same labels give the same bytes
    entry.size = len(data)
    tar.addfile(entry, io.BytesIO(data))
