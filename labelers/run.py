"""The labelling job: images and ground truth in, tables of observations and labels out."""

from __future__ import annotations

import csv
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from labelers.balance import SideCounts, count_sides, plan_round
from labelers.config import LabelConfig
from labelers.decide import decide_as, read_for_rules
from labelers.engines import Engine, EngineName, find_engine
from labelers.evidence import COLUMNS, COPY_COLUMNS
from labelers.observe import Observed, ObserverSpec, Outcome, WorkItem, open_networks
from labelers.provenance import describe_job
from labelers.store import (
    PartStore,
    claim,
    digest_source,
    part_items,
    read_manifest,
    require_same_job,
    write_manifest,
)
from labelers.truth import GroundTruth, check_fit, list_sources, read_coco, read_truth
from utility_gate.errors import ConfigError, TableError
from utility_gate.files import digest_file
from utility_gate.tables import (
    LABEL_SCHEMA,
    OBSERVATION_SCHEMAS,
    read_table,
    write_table,
    write_tables,
)

log = logging.getLogger(__name__)

OBSERVATIONS = "observations.parquet"
LABELS = "labels.parquet"
SKIPPED = "skipped.csv"

Report = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class LabelJob:
    """Where a run reads and writes, and who works: what has no say in the rows.

    `truth` is a CSV table (classification) or a COCO file (detection); None if the pristine image
    is the reference: then every image below `images` is a source. `workers` 0: as many as the
    engine has room for.

    Raises:
        ConfigError: if truth and reference do not fit each other, or there is no worker.
    """

    config: LabelConfig
    images: Path
    out: Path
    truth: Path | None = None
    networks_file: Path | None = None
    keep_copies: Path | None = None
    engine: EngineName = "local"
    workers: int = 0

    def __post_init__(self) -> None:
        if self.workers < 0:
            raise ConfigError(f"expected workers >= 1, or 0 for all, got {self.workers}")
        if (self.truth is None) != (self.config.reference == "pristine"):
            raise ConfigError(
                'expected --truth FILE with reference = "truth", and none with reference = '
                f'"pristine"; got reference = "{self.config.reference}" and truth {self.truth}'
            )


@dataclass(frozen=True, slots=True)
class Round:
    """One round of balancing: what it made, and the counts after it."""

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


def run(job: LabelJob, progress: Report | None = None) -> LabelResult:
    """Observe every source, decide, and write `observations.parquet`, `labels.parquet`,
    `skipped.csv` and `manifest.json` below `job.out`.

    An image that cannot be read is recorded with the reason and does not stop the run. A run
    that was stopped goes on where it stood; one that is finished is not done again. `progress` is
    called with (done, total) sources.

    Raises:
        TableError, NetworkError, ConfigError: before anything is computed where that can be
            known, else when it happens; what was observed until then is kept.
    """
    # 1. All that can be wrong is found before the first image.
    truth = read_ground_truth(job)
    description = _describe(job, truth)
    engine = find_engine(job.engine)
    with claim(job.out):
        before = read_manifest(job.out)
        if before is not None:
            require_same_job(job.out, before["job"], description)
            if "outputs" in before:
                return _finished(job, before)
        write_manifest(job.out, {"job": description})
        # 2. Observe: the sources first, then whatever balancing asks for, round by round.
        work = _Work(job, PartStore(job.out, description, job.images), truth, engine)
        work.observe(source_items(job.config, truth), progress)
        rounds = list(_balance(work, description, truth, progress))
        # 3. Store what was seen before anything is made of it, then decide.
        schema = OBSERVATION_SCHEMAS[job.config.task]
        write_tables(work.tables(), schema, job.out / OBSERVATIONS, description)
        skipped = work.skipped()
        _write_skipped(skipped, job.out / SKIPPED)
        observations = read_for_rules(job.out / OBSERVATIONS)[0]
        labels = _decide(observations, description)
        write_table(labels, job.out / LABELS, description)
        # 4. Only now is the run done and may the parts go.
        manifest = _manifest(job, description, len(observations), rounds)
        write_manifest(job.out, manifest)
        work.store.remove()
    return LabelResult(
        labels=labels,
        observations=len(observations),
        skipped=tuple((path, reason) for path, reason, _ in skipped),
        observed=work.observed,
        forward_seconds=work.forward_seconds,
        busy_seconds=work.busy_seconds,
        rounds=tuple(rounds),
    )


def read_ground_truth(job: LabelJob) -> GroundTruth:
    """All sources of a job with what is true of them.

    Raises:
        TableError: if there are none, or the file is none.
    """
    if job.truth is None:
        return list_sources(job.images)
    return read_coco(job.truth) if job.config.task == "detection" else read_truth(job.truth)


def source_items(config: LabelConfig, truth: GroundTruth) -> list[WorkItem]:
    """The sources themselves as work, numbered in their order."""
    degradations = config.degradations()
    return [WorkItem(number, row, "", degradations) for number, row in enumerate(truth.rows)]


def observer_spec(job: LabelJob, truth: GroundTruth) -> ObserverSpec:
    """What the job's workers need to know."""
    return ObserverSpec(
        job.config, job.images, job.networks_file, tuple(truth.names.items()), job.keep_copies
    )


def _describe(job: LabelJob, truth: GroundTruth) -> dict[str, Any]:
    """Open the networks, check that they fit, and let them go again: the workers have their own."""
    networks = open_networks(job.config, job.networks_file)
    names = [network.name for network in networks]
    if len(set(names)) != len(names):
        raise ConfigError(f"expected distinct networks, got {', '.join(names)}")
    check_fit(truth, networks)
    for network in networks:
        log.info("%s: weights %s", network.name, network.digest[:12])
    return describe_job(job.config, networks, truth)


class _Work:
    """The rounds of one run: their parts, and what observing them took."""

    def __init__(self, job: LabelJob, store: PartStore, truth: GroundTruth, engine: Engine) -> None:
        self.store, self.spec = store, observer_spec(job, truth)
        self._engine, self._workers = engine, job.workers
        self._rounds: list[list[Sequence[WorkItem]]] = []
        self.observed, self.forward_seconds, self.busy_seconds = 0, 0.0, 0.0

    def observe(self, items: list[WorkItem], progress: Report | None) -> None:
        """One more round: whatever of it is not there yet is made, part by part."""
        round_ = len(self._rounds)
        parts = part_items(items)
        todo = {n: part for n, part in enumerate(parts) if not self.store.has(round_, n, part)}
        part_of = {item.number: n for n, part in todo.items() for item in part}
        waiting: dict[int, dict[int, Outcome]] = {n: {} for n in todo}
        done = len(items) - len(part_of)
        if progress is not None:
            progress(done, len(items))
        left = [item for part in todo.values() for item in part]
        workers = self._workers or (self._engine.count_workers() if left else 1)
        for outcome in self._engine.observe_all(self.spec, left, workers):
            self._count(outcome, items)
            number = part_of[outcome.number]
            waiting[number][outcome.number] = outcome
            if len(waiting[number]) == len(todo[number]):
                ready = waiting.pop(number)
                self.store.write(
                    round_, number, todo[number], [ready[item.number] for item in todo[number]]
                )
            done += 1
            if progress is not None:
                progress(done, len(items))
        self._rounds.append(parts)

    def tables(self) -> Iterator[pa.Table]:
        """All observations so far, part after part."""
        for round_, parts in enumerate(self._rounds):
            for number in range(len(parts)):
                yield self.store.load(round_, number)

    def skipped(self) -> list[tuple[str, str, str]]:
        """(path, reason, digest) of all sources that could not be observed."""
        return [
            row
            for round_, parts in enumerate(self._rounds)
            for number in range(len(parts))
            for row in self.store.skipped(round_, number)
        ]

    def _count(self, outcome: Outcome, items: list[WorkItem]) -> None:
        if isinstance(outcome, Observed):
            self.forward_seconds += outcome.forward_seconds
            self.busy_seconds += outcome.seconds
        else:
            path = items[outcome.number - items[0].number].truth.path
            log.warning("%s is left out: %s", path, outcome.reason)
        self.observed += 1


def _balance(
    work: _Work, description: dict[str, Any], truth: GroundTruth, progress: Report | None
) -> Iterator[Round]:
    config = work.spec.config
    if config.balance is None:
        return
    number = len(truth.rows)
    for round_ in range(1, config.balance.rounds + 1):
        labels = _decide(_collect(work, config), description)
        items = plan_round(
            labels, truth.rows, config.degradations(), config.balance, round_, number
        )
        if not items:
            return
        work.observe(items, progress)
        number += len(items)
        after = _decide(_collect(work, config), description)
        yield Round(len(items), tuple(count_sides(after)))


def _collect(work: _Work, config: LabelConfig) -> pa.Table:
    columns = [*COPY_COLUMNS, *COLUMNS[config.task]]
    return pa.concat_tables(table.select(columns) for table in work.tables())


def _decide(table: pa.Table, description: dict[str, Any]) -> pa.Table:
    if not len(table):
        raise TableError("expected at least one image that can be read; see the warnings above")
    return decide_as(table, description)


def _write_skipped(rows: list[tuple[str, str, str]], path: Path) -> None:
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("path", "reason", "sha256"), *rows])
    except OSError as error:
        raise TableError(f"{path}: could not be written: {error}") from error


def _manifest(
    job: LabelJob, description: dict[str, Any], observations: int, rounds: Sequence[Round]
) -> dict[str, Any]:
    return {
        "job": description,
        "observations": observations,
        "balance": [asdict(round_) for round_ in rounds],
        "outputs": {name: digest_file(job.out / name) for name in (OBSERVATIONS, LABELS, SKIPPED)},
    }


def _finished(job: LabelJob, manifest: dict[str, Any]) -> LabelResult:
    """A run that was done before: its tables, if they and the images are still the same.

    Raises:
        TableError: if they are not; nothing is touched.
    """
    for name, digest in manifest["outputs"].items():
        if digest_source(job.out / name) != digest:
            raise TableError(
                f"{job.out / name}: expected the file that the finished run wrote (SHA-256 "
                f"{digest[:12]}...), got another or none; give another --out to label again"
            )
    with (job.out / SKIPPED).open(newline="", encoding="utf-8") as file:
        skipped = [(row["path"], row["reason"], row["sha256"]) for row in csv.DictReader(file)]
    labels = read_table(job.out / LABELS, LABEL_SCHEMA)
    seen = set(zip(labels["source"].to_pylist(), labels["source_digest"].to_pylist(), strict=True))
    for path, digest in sorted(seen | {(path, digest) for path, _, digest in skipped}):
        if (digest_source(job.images / path) or "") != digest:
            raise TableError(
                f"{path} has changed since it was labelled in {job.out}; give another --out"
            )
    rounds = tuple(
        Round(entry["augmented"], tuple(SideCounts(**counts) for counts in entry["counts"]))
        for entry in manifest["balance"]
    )
    return LabelResult(
        labels=labels,
        observations=manifest["observations"],
        skipped=tuple((path, reason) for path, reason, _ in skipped),
        rounds=rounds,
    )
