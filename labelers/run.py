"""The labelling job: images and ground truth in, tables of observations and labels out."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from labelers.balance import count_sides, plan_round
from labelers.config import LabelConfig
from labelers.copies import keep_missing
from labelers.decide import decide_as, read_for_rules
from labelers.engines import find_engine
from labelers.evidence import COLUMNS, COPY_COLUMNS
from labelers.job import LabelJob, describe, observer_spec, read_ground_truth, source_items
from labelers.networks import fingerprint
from labelers.outputs import (
    LabelResult,
    Round,
    describe_outputs,
    read_outputs,
    write_skipped,
)
from labelers.store import (
    LABELS,
    OBSERVATIONS,
    SKIPPED,
    PartStore,
    claim,
    read_manifest,
    require_same_job,
    write_manifest,
)
from labelers.truth import GroundTruth
from labelers.work import Report, Work
from utility_gate.degrade import PRISTINE
from utility_gate.errors import TableError
from utility_gate.files import digest_file
from utility_gate.tables import OBSERVATION_SCHEMAS, read_labels, write_table, write_tables

log = logging.getLogger(__name__)

_HARDLY_EVER = 0.05
"""A voter that is right on a smaller share of pristine images most likely has other classes."""


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
    engine = find_engine(job.engine)
    description, networks = describe(job, truth, engine)
    with claim(job.out):
        before = read_manifest(job.out)
        if before is not None:
            require_same_job(job.out, before["job"], description)
            if "outputs" in before:
                PartStore(job.out, description, job.images).remove()  # killed while it did so
                return _finish(job, read_outputs(job.out, job.images, before))
        write_manifest(job.out, {"job": description})
        # 2. Observe: the sources first, then whatever balancing asks for, round by round.
        store = PartStore(job.out, description, job.images)
        spec = observer_spec(job, truth)
        work = Work(store, spec, engine, job.workers, fingerprint(networks))
        work.observe(source_items(job.config, truth), progress)
        rounds = list(_balance(work, description, truth, progress))
        # 3. Store what was seen before anything is made of it, then decide.
        schema = OBSERVATION_SCHEMAS[job.config.task]
        write_tables(work.tables(), schema, job.out / OBSERVATIONS, description)
        skipped = work.skipped()
        write_skipped(skipped, job.out / SKIPPED)
        observations = read_for_rules(job.out / OBSERVATIONS)[0]
        labels = _decide(observations, description)
        origin = {"observations_sha256": digest_file(job.out / OBSERVATIONS)}
        write_table(labels, job.out / LABELS, description | origin)
        # 4. Only now is the run done and may the parts go.
        manifest = describe_outputs(job.out, description, len(observations), rounds)
        write_manifest(job.out, manifest)
        store.remove()
        _warn_of_strangers(observations, description)
    result = LabelResult(
        labels=labels,
        observations=len(observations),
        skipped=tuple((path, reason) for path, reason, _ in skipped),
        observed=work.observed,
        forward_seconds=work.forward_seconds,
        busy_seconds=work.busy_seconds,
        rounds=tuple(rounds),
    )
    return _finish(job, result)


def _finish(job: LabelJob, result: LabelResult) -> LabelResult:
    """Copies of sources that were observed before are not there yet, if they are asked for."""
    if job.keep_copies is not None:
        keep_missing(job.keep_copies, job.images, read_labels(job.out / LABELS))
    return result


def _balance(
    work: Work, description: dict[str, Any], truth: GroundTruth, progress: Report | None
) -> Iterator[Round]:
    config = work.spec.config
    if config.balance is None:
        return
    number = len(truth.rows)
    labels = _decide(_collect(work, config), description)
    for round_ in range(1, config.balance.rounds + 1):
        items = plan_round(
            labels, truth.rows, config.degradations(), config.balance, round_, number
        )
        if not items:
            return
        work.observe(items, progress)
        number += len(items)
        labels = _decide(_collect(work, config), description)
        yield Round(len(items), tuple(count_sides(labels)))


def _collect(work: Work, config: LabelConfig) -> pa.Table:
    columns = [*COPY_COLUMNS, *COLUMNS[config.task]]
    return pa.concat_tables(table.select(columns) for table in work.tables())


def _decide(table: pa.Table, description: dict[str, Any]) -> pa.Table:
    if not len(table):
        raise TableError("expected at least one image that can be read; see the warnings above")
    return decide_as(table, description)


def _warn_of_strangers(observations: pa.Table, description: dict[str, Any]) -> None:
    """A class list in another order, or shifted by one, shows in nothing but the answers."""
    if description["task"] != "classification":
        return
    pristine = observations.filter(pc.equal(observations["degradation"].cast("string"), PRISTINE))
    right = pc.equal(pristine["true_class"], pristine["predicted_class"])
    for name in description["networks"]:
        own = right.filter(pc.equal(pristine["network"].cast("string"), name))
        share = pc.mean(own.cast("float64")).as_py()
        if share is not None and share < _HARDLY_EVER:
            log.warning(
                "%s is right on %.1f %% of the pristine images: are its classes those of the "
                "ground truth, in the same order?", name, 100 * share,
            )  # fmt: skip
