"""How good the car-model pipeline is, on photographs that it was not trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pipelines.car_model.answer import AnswerThresholds
from pipelines.car_model.data import load_job
from pipelines.car_model.levels import CarScores, score_answers
from pipelines.car_model.pipeline import HEAD, CarModelPipeline
from pipelines.classifier import Classifier, Floats
from pipelines.evaluate import evaluate as evaluate_heads
from pipelines.examples import Example
from pipelines.results import write_results
from pipelines.tables import head_table, markdown, percent, with_interval


def evaluate(config: Path, data: Path, model: str, out: Path) -> str:
    """Measure a pipeline's networks on the test side into `out`; returns the tables.

    Raises:
        ConfigError, TableError: if the file or the images cannot be used.
        CheckpointError: if `model` holds no usable pipeline.
    """
    pipeline = CarModelPipeline.load(model)
    _, job = load_job(config, data, out)
    test = job.side("test")
    measured = evaluate_heads(pipeline.classifier, job.side("train"), test, views=True)
    said = to_rows(pipeline.classifier, measured.probabilities)
    table = answer_table(measure(said, test, pipeline.thresholds))
    write_results(measured.heads, out, table)
    return f"{head_table(measured.heads)}\n{table}"


def measure(
    said: Sequence[Mapping[str, float]], examples: Sequence[Example], thresholds: AnswerThresholds
) -> CarScores:
    """What is told of labelled images, of each of which `said` has the probabilities of all
    classes."""
    groups = [example.group for example in examples]
    return score_answers(said, truths_of(examples), groups, thresholds)


def to_rows(classifier: Classifier, probabilities: Mapping[str, Floats]) -> list[dict[str, float]]:
    """Probabilities (N, K) by head as those of all classes of cars, by name, image by image."""
    (head,) = (card for card in classifier.card.heads if card.name == HEAD)
    return [dict(zip(head.classes, map(float, row), strict=True)) for row in probabilities[HEAD]]


def truths_of(examples: Sequence[Example]) -> list[str]:
    """The true class of every image."""
    return [example.labels[HEAD][0] for example in examples]


def answer_table(scores: CarScores) -> str:
    """What is told of cars and of other photographs, in percent."""
    rows = [
        ["top 1, of cars", with_interval(scores.top1)],
        ["top 3, of cars", with_interval(scores.top3)],
        ["make, of cars", with_interval(scores.make)],
        *(
            [f"{level} told", f"{percent(told.share)}, of which right {percent(told.right)}"]
            for level, told in scores.told.items()
        ),
        ["cars said to be none", percent(scores.cars_refused)],
        ["photographs without a car, found", percent(scores.no_car_found)],
    ]
    return markdown((f"{scores.cars} cars, {scores.others} others", "percent"), rows)
