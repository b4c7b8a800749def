"""How often what is told of cars is right, and from which probability on it is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.car_model.answer import NO_CAR, AnswerThresholds, Level, answer
from pipelines.car_model.names import split_name
from pipelines.measure import bootstrap, in_top
from pipelines.risk import threshold_for
from utility_gate.statistics import Interval

ANY = AnswerThresholds(0.0, 0.0)
"""Those by which everything is told, however improbable."""


@dataclass(frozen=True, slots=True)
class Told:
    """How often something was told, as a share of all, and how often that was right."""

    share: float
    right: float


@dataclass(frozen=True, slots=True)
class CarScores:
    """`top1`, `top3` and `make` are over photographs of cars, among the classes of cars alone;
    `told` is by level, of cars; `no_car_found` and `cars_refused` are the shares of photographs
    without a car, and with one, that are said to show none."""

    cars: int
    others: int
    top1: Interval
    top3: Interval
    make: Interval
    told: Mapping[str, Told]
    no_car_found: float
    cars_refused: float


def choose_thresholds(
    rows: Sequence[Mapping[str, float]], truths: Sequence[str], wrong_models: float,
    wrong_makes: float,
) -> AnswerThresholds:  # fmt: skip
    """Thresholds by held-out photographs: of the models told at most `wrong_models` are wrong, of
    the makes at most `wrong_makes`, each with 95 % confidence. `rows` are the probabilities of all
    classes."""
    said = [answer(row, ANY) for row in rows]
    models = np.array([one.candidates[0].probability for one in said])
    right = np.array(
        [one.candidates[0].name == truth for one, truth in zip(said, truths, strict=True)]
    )
    makes = np.array([one.make[1] for one in said])
    makes_right = np.array(
        [truth != NO_CAR and one.make[0] == _make(truth)
         for one, truth in zip(said, truths, strict=True)]
    )  # fmt: skip
    return AnswerThresholds(
        model_from=round(threshold_for(models, right, wrong_models), 6),
        make_from=round(threshold_for(makes, makes_right, wrong_makes), 6),
    )


def score_answers(
    rows: Sequence[Mapping[str, float]], truths: Sequence[str], groups: Sequence[str],
    thresholds: AnswerThresholds,
) -> CarScores:  # fmt: skip
    """What the thresholds make of the probabilities of all classes."""
    said = [answer(row, thresholds) for row in rows]
    car = [i for i, truth in enumerate(truths) if truth != NO_CAR]
    other = [i for i, truth in enumerate(truths) if truth == NO_CAR]
    classes = [name for name in rows[0] if name != NO_CAR]
    table = np.array([[rows[i][name] for name in classes] for i in car])
    targets = np.array([classes.index(truths[i]) for i in car])
    makes = np.array([said[i].make[0] == _make(truths[i]) for i in car])
    its = [groups[i] for i in car]
    told = {}
    for level in (Level.MODEL, Level.MAKE):
        at = [i for i in car if said[i].level is level]
        right = [
            said[i].candidates[0].name == truths[i]
            if level is Level.MODEL
            else said[i].make[0] == _make(truths[i])
            for i in at
        ]
        told[str(level)] = Told(len(at) / len(car), float(np.mean(right)) if at else float("nan"))

    def refused(rows_: Sequence[int]) -> float:
        return (
            float(np.mean([said[i].level is Level.NO_CAR for i in rows_]))
            if rows_
            else float("nan")
        )

    return CarScores(
        cars=len(car),
        others=len(other),
        top1=bootstrap(in_top(table, targets, 1), its),
        top3=bootstrap(in_top(table, targets, 3), its),
        make=bootstrap(makes, its),
        told=told,
        no_car_found=refused(other),
        cars_refused=refused(car),
    )


def _make(name: str) -> str:
    return split_name(name).make
