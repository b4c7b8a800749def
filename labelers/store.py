"""Where a run keeps what it has done: a manifest, and a Parquet part for every few sources.

A part is written whole or not at all and says which sources it holds, so a run that was killed
at any moment goes on where it stood.
"""

from __future__ import annotations

import fcntl
import json
import logging
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from labelers.observe import Observed, Outcome, Skipped, WorkItem
from utility_gate.differences import differences
from utility_gate.errors import TableError
from utility_gate.files import digest_bytes, digest_json, read_source, whole_file
from utility_gate.tables import OBSERVATION_SCHEMAS, read_metadata, read_table, write_table

log = logging.getLogger(__name__)

OBSERVATIONS = "observations.parquet"
LABELS = "labels.parquet"
SKIPPED = "skipped.csv"
MANIFEST = "manifest.json"
RUN_FILES = (OBSERVATIONS, LABELS, SKIPPED, MANIFEST)
PART_SOURCES = 16
"""A killed run loses what it had of so many sources at most, and those in the workers' hands."""


_SAID_TWICE = ("config_sha256", "config.rule", "config.degradations")
"""Of two descriptions; the rule and the degradations stand outside the configuration too."""


class PartStore:
    """The parts of one job below `out`; `job` is its whole description."""

    def __init__(self, out: Path, job: dict[str, Any], images: Path) -> None:
        self._folder, self._images = out / "parts", images
        self._schema = OBSERVATION_SCHEMAS[job["task"]]
        self._job_digest = digest_json(job)

    def path(self, round_: int, number: int) -> Path:
        """File of part `number` of round `round_` (0: the sources themselves)."""
        return self._folder / f"{round_:02d}-{number:06d}.parquet"

    def write(
        self, round_: int, number: int, items: Sequence[WorkItem], outcomes: list[Outcome]
    ) -> None:
        """Store the outcomes of `items`, in their order.

        Raises:
            TableError: if the part cannot be written; earlier ones stay.
        """
        tables = [outcome.table for outcome in outcomes if isinstance(outcome, Observed)]
        table = pa.concat_tables(tables) if tables else self._schema.empty_table()
        entries = [
            [
                item.truth.path,
                item.augmentation,
                outcome.source_digest,
                outcome.reason if isinstance(outcome, Skipped) else None,
            ]
            for item, outcome in zip(items, outcomes, strict=True)
        ]
        metadata = {"job_sha256": self._job_digest, "items": entries}
        write_table(table, self.path(round_, number), metadata)

    def has(self, round_: int, number: int, items: Sequence[WorkItem]) -> bool:
        """Whether the part is there, whole, of this job and of these very images as they are now.
        Else it must be made again."""
        path = self.path(round_, number)
        if not path.exists():
            return False
        try:
            self.load(round_, number)
            self._check(read_metadata(path), items)
        except (TableError, ValueError) as error:
            log.warning("%s is made again: %s", path.name, error)
            return False
        return True

    def load(self, round_: int, number: int) -> pa.Table:
        """The observations of a part that is there.

        Raises:
            TableError: if it is damaged.
        """
        return read_table(self.path(round_, number), self._schema).cast(self._schema)

    def skipped(self, round_: int, number: int) -> list[tuple[str, str, str]]:
        """The sources of a part that were skipped: (path, reason, SHA-256 or "").

        Raises:
            TableError: if the part is damaged.
        """
        entries = read_metadata(self.path(round_, number))["items"]
        return [(path, reason, digest or "") for path, _, digest, reason in entries if reason]

    def remove(self) -> None:
        """Remove all parts, once they stand in the tables."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _check(self, metadata: dict[str, Any], items: Sequence[WorkItem]) -> None:
        if metadata.get("job_sha256") != self._job_digest:
            raise ValueError("it belongs to another job")
        entries = metadata["items"]
        if [entry[:2] for entry in entries] != [[i.truth.path, i.augmentation] for i in items]:
            raise ValueError("it holds other sources")
        for path, _, digest, _ in entries:
            if digest_source(self._images / path) != digest:
                raise ValueError(f"{path} has changed since")


def refuse_run_file(out: Path) -> None:
    """A run's own files are written by the run alone.

    Raises:
        TableError: if `out` is one, of whatever run.
    """
    if out.name in RUN_FILES and (out.resolve().parent / MANIFEST).exists():
        raise TableError(f"{out}: expected a file beside those of the run, which stay as they are")


def part_items(items: Sequence[WorkItem]) -> list[Sequence[WorkItem]]:
    """The items of each part, in order."""
    return [items[n : n + PART_SOURCES] for n in range(0, len(items), PART_SOURCES)]


def digest_source(path: Path) -> str | None:
    """SHA-256 of a source as it is now; None if it cannot be read."""
    try:
        return digest_bytes(read_source(path))
    except OSError:
        return None


@contextmanager
def claim(out: Path) -> Iterator[None]:
    """Hold `out` for one run at a time.

    Raises:
        TableError: if it cannot be written or another run holds it.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = (out / ".lock").open("w")
    except OSError as error:
        raise TableError(f"{out}: expected a folder that can be written: {error}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise TableError(f"{out}: another run is at work there; wait for it") from error
        # The file stays: a lock on one that is removed would hold nobody back.
        yield


def read_manifest(out: Path) -> dict[str, Any] | None:
    """The manifest of the job in `out`, None if there is none.

    Raises:
        TableError: if it is damaged.
    """
    try:
        manifest: dict[str, Any] = json.loads((out / MANIFEST).read_text(encoding="utf-8"))
        if not isinstance(manifest["job"], dict):
            raise TypeError(f"job: {manifest['job']!r}")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise TableError(f"{out / MANIFEST}: expected a manifest: {error}") from error
    return manifest


def write_manifest(out: Path, manifest: dict[str, Any]) -> None:
    """Write the manifest whole or not at all.

    Raises:
        TableError: if it cannot be written.
    """
    path = out / MANIFEST
    try:
        with whole_file(path) as partial, partial.open("w", encoding="utf-8") as file:
            json.dump(manifest, file, indent=1, sort_keys=True)
            file.write("\n")
    except OSError as error:
        raise TableError(f"{path}: could not be written: {error}") from error


def require_same_job(out: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Refuse to go on with another job than the one that was begun in `out`.

    Raises:
        TableError: saying what differs.
    """
    if before == now:
        return
    every = differences(before, now)
    changed = [line for line in every if not line.startswith(_SAID_TWICE)] or every
    hint = "give another --out, or put back what was changed"
    balanced = before.get("config", {}).get("balance") is not None  # rounds follow from labels
    if all(line.startswith("rule.") for line in changed) and not balanced:
        hint = (
            "observations do not depend on the rule: finish as begun, then `utility-gate relabel`"
        )
    raise TableError(f"{out} holds a run that was begun otherwise; {'; '.join(changed)}; {hint}")
