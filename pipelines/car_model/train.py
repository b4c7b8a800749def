"""The car-model pipeline's classifier, from labelled images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from pipelines.car_model.data import load_job
from pipelines.car_model.evaluate import answer_table, measure, to_rows, truths_of
from pipelines.car_model.levels import choose_thresholds
from pipelines.classifier import Classifier
from pipelines.evaluate import classify_all
from pipelines.results import write_results
from pipelines.tables import head_table
from pipelines.training.config import load_recipe
from pipelines.training.experiments import compare_backbones, cross_validate, search_grid
from pipelines.training.train_classifier import train_classifier
from utility_gate.checkpoint import save_card


def train(
    config: Path,
    data: Path,
    out: Path,
    *,
    folds: int = 0,
    backbones: Sequence[str] = (),
    rates: Sequence[float] = (),
    dropouts: Sequence[float] = (),
    epochs: int | None = None,
    seed: int | None = None,
    threads: int | None = None,
    release: str = "1",
) -> str:
    """Train, export and measure into `out`; returns the tables.

    With `rates` or `dropouts` all their pairs are tried first (in `out/grid`), and the best by the
    validation side is trained. With `folds` or `backbones` the recipe is trained once for each.

    Raises:
        ConfigError, TableError, CheckpointError: as `train_classifier`.
    """
    options, job = load_job(config, data, out, release)
    recipe = load_recipe(config, epochs=epochs, seed=seed, threads=threads)
    if folds:
        return cross_validate(replace(job, out=out / "folds"), recipe, folds)
    if backbones:
        return compare_backbones(replace(job, out=out / "backbones"), recipe, backbones)
    tables = []
    if rates or dropouts:
        recipe, table = search_grid(
            replace(job, out=out / "grid"),
            recipe,
            rates or (recipe.learning_rate,),
            dropouts or (recipe.dropout,),
        )
        tables.append(table)
    card, results = train_classifier(job, recipe)
    classifier = Classifier.load(out)
    validation, test = job.side("validation"), job.side("test")
    thresholds = choose_thresholds(
        to_rows(classifier, classify_all(classifier, validation)),
        truths_of(validation),
        options.wrong_models,
        options.wrong_makes,
    )
    scores = measure(to_rows(classifier, classify_all(classifier, test)), test, thresholds)
    card = card.model_copy(
        update={
            "thresholds": asdict(thresholds),
            "metrics": {**card.metrics, "answers": asdict(scores)},
        }
    )
    save_card(card, out)
    table = answer_table(scores)
    write_results(results, out, table)
    return "\n".join([*tables, head_table(results), table])
