"""The files of a finished run: written once, found unchanged ever after."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from labelers.balance import SideCounts
from labelers.store import LABELS, OBSERVATIONS, SKIPPED, digest_source
from utility_gate.errors import TableError
from utility_gate.files import digest_file, whole_file
from utility_gate.tables import LABEL_SCHEMA, read_table


@dataclass(frozen=True, slots=True)
class Round:
    """One round of balancing: how many augmented sources it made, and the counts after it."""

    augmented: int
    counts: tuple[SideCounts, ...]


@dataclass(frozen=True, slots=True)
class LabelResult:
    """What a run made. `observed` sources were looked at by this very run, the others before it
    was interrupted; the networks' forward passes took `forward_seconds` of the workers'
    `busy_seconds`. `rounds` are those of balancing."""

    labels: pa.Table
    observations: int
    skipped: tuple[tuple[str, str], ...]
    observed: int = 0
    forward_seconds: float = 0.0
    busy_seconds: float = 0.0
    rounds: tuple[Round, ...] = ()


def write_skipped(rows: list[tuple[str, str, str]], path: Path) -> None:
    """(path, reason, digest) rows as CSV.

    Raises:
        TableError: if it cannot be written.
    """
    try:
        with whole_file(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("path", "reason", "sha256"), *rows])
    except OSError as error:
        raise TableError(f"{path}: could not be written: {error}") from error


def read_skipped(path: Path) -> list[tuple[str, str, str]]:
    """The (path, reason, digest) rows that `write_skipped` wrote.

    Raises:
        TableError: if they are not there.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [(row["path"], row["reason"], row["sha256"]) for row in csv.DictReader(file)]
    except (OSError, UnicodeDecodeError, csv.Error, KeyError) as error:
        raise TableError(f"{path}: expected the list of skipped images: {error!r}") from error


def describe_outputs(
    out: Path, job: dict[str, Any], observations: int, rounds: Iterable[Round]
) -> dict[str, Any]:
    """The manifest of a finished run."""
    return {
        "job": job,
        "observations": observations,
        "balance": [asdict(round_) for round_ in rounds],
        "outputs": {name: digest_file(out / name) for name in (OBSERVATIONS, LABELS, SKIPPED)},
    }


def read_outputs(out: Path, images: Path, manifest: dict[str, Any]) -> LabelResult:
    """What a finished run made, if its files and its images are still the same.

    Raises:
        TableError: if they are not; nothing is touched.
    """
    outputs, balance = manifest["outputs"], manifest.get("balance")
    known = isinstance(outputs, dict) and set(outputs) == {OBSERVATIONS, LABELS, SKIPPED}
    if not known or not isinstance(balance, list) or "observations" not in manifest:
        raise TableError(f"{out}: expected the manifest of a finished run, got another")
    for name, digest in outputs.items():
        if digest_source(out / name) != digest:
            raise TableError(
                f"{out / name}: expected the file that the finished run wrote (SHA-256 "
                f"{digest[:12]}...), got another or none; give another --out to label again"
            )
    skipped = read_skipped(out / SKIPPED)
    labels = read_table(out / LABELS, LABEL_SCHEMA)
    seen = set(zip(labels["source"].to_pylist(), labels["source_digest"].to_pylist(), strict=True))
    for path, digest in sorted(seen | {(path, digest) for path, _, digest in skipped}):
        if (digest_source(images / path) or "") != digest:
            raise TableError(
                f"{path} has changed since it was labelled in {out}; give another --out"
            )
    rounds = tuple(
        Round(entry["augmented"], tuple(SideCounts(**counts) for counts in entry["counts"]))
        for entry in balance
    )
    return LabelResult(
        labels=labels,
        observations=manifest["observations"],
        skipped=tuple((path, reason) for path, reason, _ in skipped),
        rounds=rounds,
    )
