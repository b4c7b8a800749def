"""What a run would do, and how long it will take: measured on a few sources, nothing written."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from labelers.engines import find_engine
from labelers.job import LabelJob, describe, observer_spec, read_ground_truth, source_items
from labelers.observe import Observed, Observer, WorkItem
from labelers.store import PartStore, part_items, read_manifest, require_same_job
from utility_gate.degrade import describe as label_of

TIMED_SOURCES = 3
BYTES_PER_OBSERVATION = {"classification": 60, "detection": 400}
"""Measured on our own tables, zstd."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A run to be: `done` of its `sources` are observed already; `seconds` for the rest, from
    `seconds_each` measured on `timed` of them (0 if none could be read or none is left)."""

    sources: int
    done: int
    copies: int
    degradations: tuple[str, ...]
    networks: tuple[str, ...]
    observations: int
    megabytes: float
    timed: int
    seconds_each: float
    workers: int
    seconds: float


def plan(job: LabelJob) -> Plan:
    """Check the whole job as a run would, observe a few sources, and forget what was seen.

    Balancing rounds are not counted: how many it takes shows only when labels are there.

    Raises:
        TableError, NetworkError, ConfigError: whatever would stop the run at its start.
    """
    truth = read_ground_truth(job)
    engine = find_engine(job.engine)
    description, networks = describe(job, truth, engine)
    manifest = read_manifest(job.out) if job.out.exists() else None
    degradations = job.config.degradations()
    items = source_items(job.config, truth)
    done = 0
    if manifest is not None:
        require_same_job(job.out, manifest["job"], description)
        store = PartStore(job.out, description, job.images)
        parts = part_items(items)
        done = sum(len(part) for n, part in enumerate(parts) if store.has(0, n, part))
        done = len(items) if "outputs" in manifest else done
    spec = replace(observer_spec(job, truth), keep_copies=None)
    times = _time(Observer(spec), items) if done < len(items) else []
    each = sum(times) / len(times) if times else 0.0
    observations = len(items) * (1 + len(degradations)) * len(networks)
    workers = job.workers or engine.count_workers()
    return Plan(
        sources=len(items),
        done=done,
        copies=len(degradations),
        degradations=tuple(label_of(degradation) for degradation in degradations),
        networks=tuple(network.name for network in networks),
        observations=observations,
        megabytes=observations * BYTES_PER_OBSERVATION[job.config.task] / 1e6,
        timed=len(times),
        seconds_each=each,
        workers=workers,
        seconds=each * (len(items) - done) / workers,
    )


def _time(observer: Observer, items: list[WorkItem]) -> list[float]:
    """Seconds of sources spread over the whole; the first one warms up and does not count."""
    step = max(1, len(items) // (TIMED_SOURCES + 1))
    times = []
    for item in items[::step][: TIMED_SOURCES + 1]:
        started = time.perf_counter()
        if isinstance(observer.observe(item), Observed):
            times.append(time.perf_counter() - started)
    return times[1:] or times
