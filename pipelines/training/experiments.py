"""Many fits side by side: folds, backbones, a grid."""

from __future__ import annotations

import csv
import itertools
import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from pipelines.evaluate import HeadResult
from pipelines.examples import fold_sides
from pipelines.job import Job
from pipelines.tables import markdown, percent
from pipelines.training.config import Recipe
from pipelines.training.fit import HISTORY
from pipelines.training.train_classifier import train_classifier
from utility_gate.errors import ConfigError


def compare(
    job: Job, recipe: Recipe, out: Path, folds: int, backbones: Sequence[str]
) -> str | None:
    """The table of `cross_validate` or `compare_backbones`, into `out/folds` or `out/backbones`;
    None if neither was asked for."""
    if folds:
        return cross_validate(replace(job, out=out / "folds"), recipe, folds)
    if backbones:
        return compare_backbones(replace(job, out=out / "backbones"), recipe, backbones)
    return None


def cross_validate(job: Job, recipe: Recipe, folds: int) -> str:
    """Train on all folds but one, measure on that one, for each: seed 001's table as Markdown, also
    written to `folds.md`. The last row is the mean.

    Raises:
        ConfigError: for fewer than two folds.
        ConfigError, TableError, CheckpointError: as `train_classifier`.
    """
    if folds < 2:
        raise ConfigError(f"expected 2 folds or more, got {folds}")
    accuracies: dict[str, list[float]] = {}
    for fold in range(folds):
        examples = tuple(fold_sides(job.examples, fold, folds))
        part = replace(job, examples=examples, out=job.out / f"fold-{fold}")
        _, results = train_classifier(part, recipe)
        for result in results:
            accuracies.setdefault(result.head.name, []).append(result.scores.accuracy.value)
    rows = [
        [str(fold + 1), *(percent(values[fold]) for values in accuracies.values())]
        for fold in range(folds)
    ]
    rows.append(["mean", *(percent(statistics.mean(values)) for values in accuracies.values())])
    return _write(markdown(("fold", *accuracies), rows), job.out / "folds.md")


def compare_backbones(job: Job, recipe: Recipe, archs: Sequence[str]) -> str:
    """The same recipe on several backbones: seed 000's table 3 as Markdown, one row a backbone and
    head, also written to `backbones.md`.

    Raises:
        ConfigError: for an unknown backbone.
        ConfigError, TableError, CheckpointError: as `train_classifier`.
    """
    recipes = [recipe.with_changes(arch=arch) for arch in archs]
    rows = []
    for arch, one in zip(archs, recipes, strict=True):
        part = replace(job, out=job.out / arch)
        _, results = train_classifier(part, one)
        heads_only = best_accuracies(part.out / HISTORY, "heads")
        rows += [_row(arch, heads_only.get(result.head.name), result) for result in results]
    columns = (
        "backbone", "head", "heads only (validation)", "all layers", "precision", "recall", "F2",
        "with views",
    )  # fmt: skip
    return _write(markdown(columns, rows), job.out / "backbones.md")


def _row(arch: str, heads_only: float | None, result: HeadResult) -> list[str]:
    scores = result.scores
    numbers = (scores.accuracy.value, scores.precision, scores.recall, scores.f_beta)
    views = "" if result.with_views is None else percent(result.with_views)
    first = "" if heads_only is None else percent(heads_only)
    return [arch, result.head.name, first, *map(percent, numbers), views]


def search_grid(
    job: Job,
    recipe: Recipe,
    rates: Sequence[float],
    dropouts: Sequence[float],
    train: Callable[[Job, Recipe], object] = train_classifier,
) -> tuple[Recipe, str]:
    """Every learning rate with every dropout (seed 004, table 7): the recipe with the best mean
    validation accuracy, and the table as Markdown, also written to `grid.md`. The test side has no
    say.

    Raises:
        ConfigError, TableError, CheckpointError: as `train_classifier`.
    """
    recipes = [
        recipe.with_changes(learning_rate=rate, dropout=dropout)
        for rate, dropout in itertools.product(rates, dropouts)
    ]
    tried: list[tuple[float, Recipe]] = []
    rows = []
    for one in recipes:
        rate, dropout = f"{one.learning_rate:g}", f"{one.dropout:g}"
        part = replace(job, out=job.out / f"rate-{rate}-dropout-{dropout}")
        train(part, one)
        accuracies = best_accuracies(part.out / HISTORY, "all" if one.epochs else "heads")
        mean = statistics.mean(accuracies.values())
        tried.append((mean, one))
        rows.append([rate, dropout, percent(mean)])
    table = markdown(("learning rate", "dropout", "validation accuracy"), rows)
    best = max(tried, key=lambda pair: pair[0])[1]
    return best, _write(table, job.out / "grid.md")


def best_accuracies(history: Path, stage: str) -> dict[str, float]:
    """The heads' best validation accuracies in one stage of a fit."""
    prefix = "val_accuracy_"
    best: dict[str, float] = {}
    with history.open(newline="") as file:
        for row in csv.DictReader(file):
            for column, value in row.items():
                if row["stage"] == stage and column.startswith(prefix) and value:
                    name = column.removeprefix(prefix)
                    best[name] = max(best.get(name, 0.0), float(value))
    return best


def _write(table: str, path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(table)
    return table
