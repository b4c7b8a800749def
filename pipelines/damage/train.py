"""The damage pipeline's two networks, from labelled images and boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pipelines.boxed import read_boxed
from pipelines.damage.data import classifier_job
from pipelines.damage.pipeline import CLASSIFIER, DETECTOR
from pipelines.tables import head_table
from pipelines.training.config import load_recipe
from pipelines.training.detector_config import load_detector_config
from pipelines.training.experiments import compare_backbones, cross_validate
from pipelines.training.train_classifier import train_classifier
from pipelines.training.train_detector import train_detector
from utility_gate.errors import ConfigError

PARTS = (CLASSIFIER, DETECTOR)


def train(
    config: Path,
    data: Path,
    out: Path,
    *,
    parts: Sequence[str] = PARTS,
    folds: int = 0,
    backbones: Sequence[str] = (),
    epochs: int | None = None,
    seed: int | None = None,
    threads: int | None = None,
    release: str = "1",
) -> str:
    """Train, export and measure into `out/classifier` and `out/detector`; returns the tables.

    With `folds` or `backbones` the classifier alone is trained, once for each.

    Raises:
        ConfigError, TableError, CheckpointError: as `train_classifier` and `train_detector`.
    """
    strangers = set(parts) - set(PARTS)
    if strangers:
        raise ConfigError(f"expected the parts {', '.join(PARTS)}, got {', '.join(strangers)}")
    tables = []
    if CLASSIFIER in parts or folds or backbones:
        job = classifier_job(config, data, out / CLASSIFIER, release)
        recipe = load_recipe(config, epochs=epochs, seed=seed, threads=threads)
        if folds:
            return cross_validate(replace(job, out=out / "folds"), recipe, folds)
        if backbones:
            return compare_backbones(replace(job, out=out / "backbones"), recipe, backbones)
        _, results = train_classifier(job, recipe)
        tables.append(head_table(results))
    if DETECTOR in parts:
        detector, sets = load_detector_config(config)
        images = read_boxed(sets, data, detector.rename)
        changes = {"epochs": epochs, "seed": seed, "threads": threads}
        detector = detector.with_changes(**{k: v for k, v in changes.items() if v is not None})
        tables.append(train_detector(detector, images, out / DETECTOR, release=release))
    return "\n".join(tables)
