"""The labelling job: a folder of pristine images and a table of classes in, two tables out."""

from __future__ import annotations

import csv
import logging
import platform
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from labelers.networks import Classifier, open_network
from labelers.observe import observe_source
from labelers.rules import CcspRule, decide
from utility_gate.degrade import DEFAULT_QUALITIES, Jpeg, ladder
from utility_gate.errors import ConfigError, ImageError, TableError
from utility_gate.split import TEST_FRACTION
from utility_gate.tables import write_labels, write_observations
from utility_gate.types import Label, Observation

log = logging.getLogger(__name__)

OBSERVATIONS = "observations.parquet"
LABELS = "labels.parquet"
SKIPPED = "skipped.csv"


@dataclass(frozen=True, slots=True)
class LabelConfig:
    """What to label and how.

    `networks` vote; `observe_only` are looked at in the same run but have no vote (baselines).
    Both hold names of `networks_file` or "torchvision:NAME[:WEIGHTS]".

    Raises:
        ConfigError: if a value is out of range or a network is named twice.
    """

    images: Path
    truth: Path
    out: Path
    networks: tuple[str, ...]
    observe_only: tuple[str, ...] = ()
    networks_file: Path | None = None
    qualities: tuple[int, ...] = DEFAULT_QUALITIES
    rule: CcspRule = field(default_factory=CcspRule)
    test_fraction: float = TEST_FRACTION
    workers: int = 1

    def __post_init__(self) -> None:
        everyone = (*self.networks, *self.observe_only)
        if not self.networks or len(set(everyone)) != len(everyone):
            raise ConfigError(f"expected distinct networks, at least one with a vote: {everyone}")
        if self.workers < 1 or not 0 < self.test_fraction < 1:
            raise ConfigError(
                f"expected workers >= 1 and 0 < test_fraction < 1, got {self.workers} and "
                f"{self.test_fraction}"
            )
        try:
            ladder(self.qualities)
        except ValueError as error:
            raise ConfigError(str(error)) from error


@dataclass(frozen=True, slots=True)
class Truth:
    """One row of the ground-truth table."""

    path: str
    true_class: int


@dataclass(frozen=True, slots=True)
class LabelResult:
    """What a run made: all labels, and the images left out with the reason."""

    labels: list[Label]
    observations: int
    skipped: list[tuple[str, str]]


def read_truth(path: Path) -> list[Truth]:
    """Ground truth from a CSV with the columns `path` (below the image folder) and
    `class_index`; further columns are ignored.

    Raises:
        TableError: if the file, a column or a value is missing, or a path stands twice.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            columns = reader.fieldnames or []
            missing = {"path", "class_index"} - set(columns)
            if missing:
                raise TableError(f"{path}: expected columns path,class_index; missing {missing}")
            rows = [_truth_row(path, number, row) for number, row in enumerate(reader, 2)]
    except (OSError, UnicodeDecodeError) as error:
        raise TableError(f"{path}: expected a CSV table of ground truth: {error}") from error
    paths = [row.path for row in rows]
    twice = {p for p in paths if paths.count(p) > 1} if len(set(paths)) != len(paths) else set()
    if twice:
        raise TableError(f"{path}: expected each image once, found twice: {sorted(twice)[:5]}")
    if not rows:
        raise TableError(f"{path}: expected at least one image, found none")
    return rows


def _truth_row(path: Path, number: int, row: dict[str, str]) -> Truth:
    try:
        return Truth(row["path"], int(row["class_index"]))
    except (TypeError, ValueError) as error:
        raise TableError(
            f"{path}: line {number}: expected an integer class_index, got {row['class_index']!r}"
        ) from error


def run(config: LabelConfig, progress: Callable[[int, int], None] | None = None) -> LabelResult:
    """Observe every image of the truth table, decide, and write `observations.parquet`,
    `labels.parquet` and `skipped.csv` below `config.out`.

    An image that cannot be read is recorded with the reason and does not stop the run.
    `progress` is called with (done, total) after each image.

    Raises:
        TableError, NetworkError, ConfigError: before or during the run, if it cannot go on.
    """
    truth = read_truth(config.truth)
    names = (*config.networks, *config.observe_only)
    networks = [open_network(name, config.networks_file) for name in names]
    for network, reference in zip(networks, names, strict=True):
        log.info("%s: %s, %d classes", reference, network.digest[:12], network.classes)
    voters = [network.name for network in networks[: len(config.networks)]]
    degradations = ladder(config.qualities)
    observations: list[Observation] = []
    skipped: list[tuple[str, str]] = []
    outcomes = _observe_all(config, truth, degradations, networks)
    for done, (row, outcome) in enumerate(outcomes, 1):
        if isinstance(outcome, str):
            log.warning("%s is left out: %s", row.path, outcome)
            skipped.append((row.path, outcome))
        else:
            observations.extend(outcome)
        if progress is not None:
            progress(done, len(truth))
    labels = decide(observations, voters, config.rule, config.test_fraction)
    metadata = _provenance(config, networks)
    write_observations(observations, config.out / OBSERVATIONS, metadata)
    write_labels(labels, config.out / LABELS, metadata)
    with (config.out / SKIPPED).open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("path", "reason"), *skipped])
    return LabelResult(labels, len(observations), skipped)


def _observe_all(
    config: LabelConfig,
    truth: list[Truth],
    degradations: tuple[Jpeg, ...],
    networks: list[Classifier],
) -> Iterator[tuple[Truth, list[Observation] | str]]:
    """Each row of truth, in order, with its observations or the reason why there are none."""

    def observe(row: Truth) -> list[Observation] | str:
        try:
            data = (config.images / row.path).read_bytes()
            return observe_source(row.path, data, row.true_class, degradations, networks)
        except (OSError, ImageError) as error:
            return str(error)

    # Threads suffice: decoding, encoding and ONNX Runtime all let go of the interpreter lock.
    with ThreadPoolExecutor(config.workers) as pool:
        yield from zip(truth, pool.map(observe, truth), strict=True)


def _provenance(config: LabelConfig, networks: list[Classifier]) -> dict[str, Any]:
    return {
        "task": "classification",
        "voters": [network.name for network in networks[: len(config.networks)]],
        "networks": {network.name: network.digest for network in networks},
        "rule": {"name": "ccsp", **asdict(config.rule)},
        "operator": "unanimous",
        "qualities": sorted(config.qualities, reverse=True),
        "test_fraction": config.test_fraction,
        "packages": {
            name: version(name) for name in ("utility-gate", "pillow", "numpy", "onnxruntime")
        },
        "python": platform.python_version(),
    }
