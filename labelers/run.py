"""The labelling job: a folder of pristine images and a table of classes in, two tables out."""

from __future__ import annotations

import csv
import logging
import platform
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from labelers.networks import Classifier, open_network
from labelers.observe import observe_source
from labelers.rules import CcspRule, decide
from labelers.truth import Truth, check_classes, read_truth
from utility_gate.degrade import DEFAULT_QUALITIES, Jpeg, ladder
from utility_gate.errors import ConfigError, ImageError, TableError
from utility_gate.split import TEST_FRACTION, digest_bytes
from utility_gate.tables import write_labels, write_observations
from utility_gate.types import Label, Observation

log = logging.getLogger(__name__)

OBSERVATIONS = "observations.parquet"
LABELS = "labels.parquet"
SKIPPED = "skipped.csv"

_PACKAGES = ("utility-gate", "pillow", "numpy", "onnxruntime", "pyarrow", "torch", "torchvision")


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
    workers: int = 1

    def __post_init__(self) -> None:
        if not self.networks:
            raise ConfigError("expected at least one network with a vote, got none")
        _require_distinct((*self.networks, *self.observe_only))
        if self.workers < 1:
            raise ConfigError(f"expected workers >= 1, got {self.workers}")
        try:
            ladder(self.qualities)
        except ValueError as error:
            raise ConfigError(str(error)) from error


@dataclass(frozen=True, slots=True)
class LabelResult:
    """What a run made: all labels, and the images left out with the reason."""

    labels: list[Label]
    observations: int
    skipped: list[tuple[str, str]]


def run(config: LabelConfig, progress: Callable[[int, int], None] | None = None) -> LabelResult:
    """Observe every image of the truth table, decide, and write `observations.parquet`,
    `labels.parquet` and `skipped.csv` below `config.out`.

    An image that cannot be read is recorded with the reason and does not stop the run.
    `progress` is called with (done, total) after each image.

    Raises:
        TableError, NetworkError, ConfigError: before anything is computed where that can be
            known, else when it happens.
    """
    # 1. All that can be wrong is found before the first image.
    truth = read_truth(config.truth)
    networks = _open_networks(config)
    for network in networks:
        check_classes(truth, network.name, network.classes)
    voters = [network.name for network in networks[: len(config.networks)]]
    metadata = _provenance(config, networks)
    _prepare(config.out)
    # 2. Observe.
    observations: list[Observation] = []
    skipped: list[tuple[str, str]] = []
    outcomes = _observe_all(config, truth, ladder(config.qualities), networks)
    for done, (row, outcome) in enumerate(outcomes, 1):
        if isinstance(outcome, str):
            log.warning("%s is left out: %s", row.path, outcome)
            skipped.append((row.path, outcome))
        else:
            observations.extend(outcome)
        if progress is not None:
            progress(done, len(truth))
    # 3. Store what was seen before anything is made of it.
    write_observations(observations, config.out / OBSERVATIONS, metadata)
    with (config.out / SKIPPED).open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("path", "reason"), *skipped])
    # 4. Decide.
    labels = decide(observations, voters, config.rule)
    write_labels(labels, config.out / LABELS, metadata)
    return LabelResult(labels, len(observations), skipped)


def _require_distinct(names: tuple[str, ...]) -> None:
    if len(set(names)) != len(names):
        raise ConfigError(f"expected distinct networks, got {', '.join(names)}")


def _open_networks(config: LabelConfig) -> list[Classifier]:
    names = (*config.networks, *config.observe_only)
    networks = [open_network(name, config.networks_file) for name in names]
    _require_distinct(tuple(network.name for network in networks))
    for network in networks:
        log.info("%s: %d classes, %s", network.name, network.classes, network.digest[:12])
    return networks


def _prepare(out: Path) -> None:
    """Find out now whether the tables can be written at the end."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe = out / ".probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise TableError(f"{out}: expected a folder that can be written: {error}") from error


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
        "networks": {n.name: {"sha256": n.digest, **n.description} for n in networks},
        "rule": {"name": "ccsp", **asdict(config.rule)},
        "operator": "unanimous",
        "qualities": sorted(config.qualities, reverse=True),
        "truth_sha256": digest_bytes(config.truth.read_bytes()),
        "test_fraction": TEST_FRACTION,
        "packages": _versions(),
        "python": platform.python_version(),
    }


def _versions() -> dict[str, str]:
    """Versions of the installed packages that have a say in the numbers."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found
