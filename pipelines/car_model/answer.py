"""How much can be told of a car: pure functions of the probabilities of a network's classes."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from pipelines.car_model.names import CarName, split_name
from utility_gate.errors import CheckpointError
from utility_gate.types import is_probability

NO_CAR = "no car"
"""The class of photographs without a car. All others are names of cars."""

NO_CAR_FROM = 0.5
"""From this probability on there is more likely none than any."""


class Level(enum.StrEnum):
    """How much can be told."""

    MODEL = "MODEL"  # make and model
    MAKE = "MAKE"  # the make alone
    UNSURE = "UNSURE"  # it is a car
    NO_CAR = "NO_CAR"


@dataclass(frozen=True, slots=True)
class AnswerThresholds:
    """From which probability on a model, and a make, is told. They are chosen on held-out images,
    so that what is told is right as often as promised.

    Raises:
        ValueError: unless both are in [0, 1].
    """

    model_from: float
    make_from: float

    def __post_init__(self) -> None:
        for name in ("model_from", "make_from"):
            if not is_probability(getattr(self, name)):
                raise ValueError(f"{name}: expected 0 to 1, got {getattr(self, name)!r}")

    @classmethod
    def from_card(cls, thresholds: Mapping[str, float]) -> AnswerThresholds:
        """Those of a card.

        Raises:
            CheckpointError: if one is missing.
        """
        try:
            return cls(thresholds["model_from"], thresholds["make_from"])
        except KeyError as error:
            raise CheckpointError(
                f"expected the thresholds model_from and make_from in the card, got "
                f"{dict(thresholds)}"
            ) from error


@dataclass(frozen=True, slots=True)
class Candidate:
    """One class and its probability; `car` is its name in parts."""

    name: str
    car: CarName
    probability: float


@dataclass(frozen=True, slots=True)
class Identification:
    """What can be told of a car. `makes` and `candidates` are likeliest first, and all of them,
    whatever the level; the probabilities of all candidates and of no car sum to 1."""

    level: Level
    makes: tuple[tuple[str, float], ...]
    candidates: tuple[Candidate, ...]
    no_car: float

    @property
    def make(self) -> tuple[str, float]:
        """The likeliest make and its probability."""
        return self.makes[0]

    @property
    def text(self) -> str:
        """The answer in English."""
        match self.level:
            case Level.MODEL:
                return self.candidates[0].name
            case Level.MAKE:
                return f"{self.make[0]}, model unsure"
            case Level.UNSURE:
                return "a car, make and model unsure"
        return NO_CAR


def answer(probabilities: Mapping[str, float], thresholds: AnswerThresholds) -> Identification:
    """What the probabilities of all classes allow to tell.

    A make is as probable as all its models together. A model is told only if its make is the
    likeliest one too.

    Raises:
        ValueError: if there is no class of a car.
    """
    cars = [Candidate(name, _parts(name), p) for name, p in probabilities.items() if name != NO_CAR]
    if not cars:
        raise ValueError(f"expected classes of cars, got {list(probabilities)}")
    sums: dict[str, float] = {}
    for car in cars:
        sums[car.car.make] = sums.get(car.car.make, 0.0) + car.probability
    candidates = tuple(sorted(cars, key=lambda car: -car.probability))
    # Sums of rounded numbers may end just above 1.
    makes = tuple(sorted(((m, min(p, 1.0)) for m, p in sums.items()), key=lambda pair: -pair[1]))
    no_car = probabilities.get(NO_CAR, 0.0)
    return Identification(
        _level(candidates[0], makes[0], no_car, thresholds), makes, candidates, no_car
    )


def _level(
    best: Candidate, make: tuple[str, float], no_car: float, thresholds: AnswerThresholds
) -> Level:
    if no_car >= NO_CAR_FROM:
        return Level.NO_CAR
    if best.probability >= thresholds.model_from and best.car.make == make[0]:
        return Level.MODEL
    return Level.MAKE if make[1] >= thresholds.make_from else Level.UNSURE


@lru_cache(maxsize=4096)
def _parts(name: str) -> CarName:
    return split_name(name)
