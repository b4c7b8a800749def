"""What a labelling run works on: configuration, places, and who works."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labelers.config import LabelConfig
from labelers.engines import Engine, EngineName
from labelers.networks import NetworkFacts
from labelers.observe import ObserverSpec, WorkItem
from labelers.provenance import describe_job
from labelers.truth import GroundTruth, check_fit, list_sources, read_coco, read_truth
from utility_gate.errors import ConfigError, TableError

log = logging.getLogger(__name__)


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
        for name, folder in (("out", self.out), ("keep_copies", self.keep_copies)):
            inside = folder is not None and folder.resolve().is_relative_to(self.images.resolve())
            if inside and self.truth is None:
                raise ConfigError(
                    f"{name}: expected a folder outside {self.images}, every image of which is a "
                    f"source, got {folder}"
                )


def read_ground_truth(job: LabelJob) -> GroundTruth:
    """All sources of a job with what is true of them; some of the images must be there.

    Raises:
        TableError: if there are none, the file is none, or it names no image that is there.
    """
    if job.truth is None:
        return list_sources(job.images)
    truth = read_coco(job.truth) if job.config.task == "detection" else read_truth(job.truth)
    missing = [row.path for row in truth.rows if not (job.images / row.path).exists()]
    if len(missing) == len(truth.rows):
        raise TableError(
            f"{job.truth}: expected its images below {job.images}, found none of "
            f"{len(missing)}, such as {missing[0]}"
        )
    if missing:
        counts = len(missing), len(truth.rows)
        log.warning("%d of %d images are not there, such as %s", *counts, missing[0])
    return truth


def source_items(config: LabelConfig, truth: GroundTruth) -> list[WorkItem]:
    """The sources themselves as work, numbered in their order."""
    degradations = config.degradations()
    return [WorkItem(number, row, "", degradations) for number, row in enumerate(truth.rows)]


def observer_spec(job: LabelJob, truth: GroundTruth) -> ObserverSpec:
    """What the job's workers need to know."""
    return ObserverSpec(
        job.config, job.images, job.networks_file, tuple(truth.names.items()), job.keep_copies
    )


def describe(
    job: LabelJob, truth: GroundTruth, engine: Engine
) -> tuple[dict[str, Any], Sequence[NetworkFacts]]:
    """Everything that decides the bytes, and the networks as the engine's workers open them.

    Raises:
        NetworkError, TableError: if a network cannot be opened or does not fit the ground truth.
        ConfigError: if a network is named twice.
    """
    networks = engine.describe(observer_spec(job, truth))
    names = [network.name for network in networks]
    if len(set(names)) != len(names):
        raise ConfigError(f"expected distinct networks, got {', '.join(names)}")
    check_fit(truth, networks)
    return describe_job(job.config, networks, truth), networks
