"""How good the car-model pipeline is, on photographs that it was not trained on."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pipelines.car_model.answer import NO_CAR, AnswerThresholds
from pipelines.car_model.data import load_job
from pipelines.car_model.levels import CarScores, score_answers
from pipelines.car_model.pipeline import HEAD, CarModelPipeline
from pipelines.embedded import CLASSIFIER, DETECTOR
from pipelines.evaluate import evaluate as evaluate_heads
from pipelines.evaluate_boxes import evaluate_from_file
from pipelines.examples import Example
from pipelines.results import write_results
from pipelines.tables import head_table, markdown, percent, with_interval
from utility_gate.files import read_source

ANSWERS = "answers.md"


def evaluate(config: Path, data: Path, model: str, out: Path) -> str:
    """Measure on the test side into `out`: the classifier on the images as they are, the detector
    if the file has `[detector]`, and what both together tell of the images; returns the tables.

    Raises:
        ConfigError, TableError: if the file or the images cannot be used.
        CheckpointError: if `model` holds no usable pipeline.
    """
    pipeline = CarModelPipeline.load(model)
    _, job = load_job(config, data, out)
    test = job.side("test")
    measured = evaluate_heads(pipeline.classifier, job.side("train"), test, views=True)
    table = answer_table(measure(identify_all(pipeline, test), test, pipeline.thresholds))
    write_results(measured.heads, out / CLASSIFIER)
    (out / ANSWERS).write_text(table)
    tables = [head_table(measured.heads), table]
    if pipeline.detector is not None and "detector" in tomllib.loads(config.read_text()):
        tables.insert(1, evaluate_from_file(pipeline.detector, config, data, out / DETECTOR))
    return "\n".join(tables)


def measure(
    said: Sequence[Mapping[str, float]], examples: Sequence[Example], thresholds: AnswerThresholds
) -> CarScores:
    """What is told of labelled images, of each of which `said` has the probabilities of all
    classes."""
    groups = [example.group for example in examples]
    return score_answers(said, truths_of(examples), groups, thresholds)


def identify_all(pipeline: CarModelPipeline, examples: Sequence[Example]) -> list[dict[str, float]]:
    """The probabilities of all classes, and of no car, by name, image by image as it is served."""

    def one(example: Example) -> dict[str, float]:
        said = pipeline.identify(read_source(example.path)).identification
        return {**{car.name: car.probability for car in said.candidates}, NO_CAR: said.no_car}

    with ThreadPoolExecutor() as pool:
        return list(pool.map(one, examples))


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
