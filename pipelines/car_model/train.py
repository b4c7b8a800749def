"""The car-model pipeline's two networks, from labelled images and boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from pipelines.car_model.data import Options, load_job
from pipelines.car_model.evaluate import ANSWERS, answer_table, identify_all, measure, truths_of
from pipelines.car_model.levels import ANY, choose_thresholds
from pipelines.car_model.pipeline import CarModelPipeline
from pipelines.embedded import CLASSIFIER, DETECTOR
from pipelines.job import Job
from pipelines.tables import head_table
from pipelines.training.config import load_recipe
from pipelines.training.experiments import compare, search_grid
from pipelines.training.parts import PARTS, check_parts
from pipelines.training.train_classifier import train_classifier
from pipelines.training.train_detector import train_from_file
from utility_gate.checkpoint import save_card


def train(
    config: Path,
    data: Path,
    out: Path,
    *,
    parts: Sequence[str] = PARTS,
    folds: int = 0,
    backbones: Sequence[str] = (),
    rates: Sequence[float] = (),
    dropouts: Sequence[float] = (),
    epochs: int | None = None,
    seed: int | None = None,
    threads: int | None = None,
    release: str = "1",
) -> str:
    """Train, export and measure into `out/detector` and `out/classifier`; returns the tables. What
    is told is decided last, with both of them at work.

    With `rates` or `dropouts` all their pairs are tried first (in `out/grid`), and the best by the
    validation side is trained. With `folds` or `backbones` the classifier's recipe is trained once
    for each.

    Raises:
        ConfigError, TableError, CheckpointError: as `train_classifier` and `train_from_file`.
    """
    check_parts(parts)
    options, job = load_job(config, data, out / CLASSIFIER, release)
    tables = []
    if CLASSIFIER in parts or folds or backbones:
        recipe = load_recipe(config, epochs=epochs, seed=seed, threads=threads)
        compared = compare(job, recipe, out, folds, backbones)
        if compared is not None:
            return compared
        if rates or dropouts:
            recipe, table = search_grid(
                replace(job, out=out / "grid"),
                recipe,
                rates or (recipe.learning_rate,),
                dropouts or (recipe.dropout,),
            )
            tables.append(table)
        _, results = train_classifier(job, recipe)
        tables.append(head_table(results))
    if DETECTOR in parts:
        tables.append(
            train_from_file(
                config, data, out / DETECTOR, "car-finder",
                release=release, epochs=epochs, seed=seed, threads=threads,
            )
        )  # fmt: skip
    if (out / CLASSIFIER).is_dir():
        tables.append(decide_levels(job, options, out))
    return "\n".join(tables)


def decide_levels(job: Job, options: Options, out: Path) -> str:
    """Choose by the validation side from which probabilities on models and makes are told, by the
    pipeline in `out` as it serves, and measure it on the test side; returns the table."""
    pipeline = CarModelPipeline.load(out, thresholds=ANY)  # its own are decided here
    validation, test = job.side("validation"), job.side("test")
    thresholds = choose_thresholds(
        identify_all(pipeline, validation),
        truths_of(validation),
        options.wrong_models,
        options.wrong_makes,
    )
    scores = measure(identify_all(pipeline, test), test, thresholds)
    card = pipeline.classifier.card
    card = card.model_copy(
        update={
            "thresholds": asdict(thresholds),
            "metrics": {**card.metrics, "answers": asdict(scores)},
        }
    )
    save_card(card, out / CLASSIFIER)
    table = answer_table(scores)
    (out / ANSWERS).write_text(table)
    return table
