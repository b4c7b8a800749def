"""The damage pipeline's two networks, from labelled images and boxes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipelines.damage.data import classifier_job
from pipelines.embedded import CLASSIFIER, DETECTOR
from pipelines.tables import head_table
from pipelines.training.config import load_recipe
from pipelines.training.experiments import compare
from pipelines.training.parts import PARTS, check_parts
from pipelines.training.train_classifier import train_classifier
from pipelines.training.train_detector import train_from_file


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
        ConfigError, TableError, CheckpointError: as `train_classifier` and `train_from_file`.
    """
    check_parts(parts)
    tables = []
    if CLASSIFIER in parts or folds or backbones:
        job = classifier_job(config, data, out / CLASSIFIER, release)
        recipe = load_recipe(config, epochs=epochs, seed=seed, threads=threads)
        compared = compare(job, recipe, out, folds, backbones)
        if compared is not None:
            return compared
        _, results = train_classifier(job, recipe)
        tables.append(head_table(results))
    if DETECTOR in parts:
        tables.append(
            train_from_file(
                config, data, out / DETECTOR, "damage-detector",
                release=release, epochs=epochs, seed=seed, threads=threads,
            )
        )  # fmt: skip
    return "\n".join(tables)
