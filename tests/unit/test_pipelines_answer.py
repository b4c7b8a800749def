"""How much can be told of a car, by its classes' probabilities."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.car_model.answer import NO_CAR, AnswerThresholds, Level, answer
from utility_gate.errors import CheckpointError

TT, A5, M3, M5 = "Audi TT Coupe 2012", "Audi A5 Coupe 2012", "BMW M3 Coupe 2012", "BMW M5 2010"
LIMITS = AnswerThresholds(model_from=0.6, make_from=0.7)


@pytest.mark.parametrize(
    ("probabilities", "level", "text"),
    [
        ({TT: 0.6, A5: 0.3, M3: 0.1}, Level.MODEL, TT),
        ({TT: 0.59, A5: 0.31, M3: 0.1}, Level.MAKE, "Audi, model unsure"),
        ({TT: 0.35, A5: 0.34, M3: 0.31}, Level.UNSURE, "a car, make and model unsure"),
        ({TT: 0.3, M3: 0.1, NO_CAR: 0.6}, Level.NO_CAR, "no car"),
        ({TT: 0.5, M3: 0.0, NO_CAR: 0.5}, Level.NO_CAR, "no car"),
        ({TT: 0.62, NO_CAR: 0.38}, Level.MODEL, TT),
    ],
)
def test_levels(probabilities: dict[str, float], level: Level, text: str) -> None:
    told = answer(probabilities, LIMITS)
    assert (told.level, told.text) == (level, text)


def test_a_make_is_as_probable_as_all_its_models() -> None:
    told = answer({M3: 0.25, TT: 0.3, M5: 0.25, NO_CAR: 0.2}, LIMITS)
    assert told.make == ("BMW", 0.5)
    assert [car.name for car in told.candidates] == [TT, M3, M5]
    assert told.candidates[0].car.make == "Audi"
    assert told.no_car == 0.2


def test_a_model_is_not_told_against_its_make() -> None:
    low = AnswerThresholds(model_from=0.3, make_from=0.5)
    told = answer({TT: 0.4, M3: 0.3, M5: 0.3}, low)
    assert (told.level, told.text) == (Level.MAKE, "BMW, model unsure")


def test_thresholds_come_from_the_card_and_must_be_there() -> None:
    card = {"model_from": 0.6, "make_from": 0.7, "other": 0.1}
    assert AnswerThresholds.from_card(card) == LIMITS
    with pytest.raises(CheckpointError, match="model_from and make_from"):
        AnswerThresholds.from_card({"model_from": 0.5})
    with pytest.raises(ValueError, match="make_from: expected 0 to 1"):
        AnswerThresholds(0.5, float("nan"))


def test_a_network_without_cars_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="classes of cars"):
        answer({NO_CAR: 1.0}, LIMITS)


@given(
    st.lists(st.floats(0.001, 1), min_size=5, max_size=5),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_what_is_told_holds(weights: list[float], model_from: float, make_from: float) -> None:
    total = sum(weights)
    names = (TT, A5, M3, M5, NO_CAR)
    probabilities = {name: w / total for name, w in zip(names, weights, strict=True)}
    told = answer(probabilities, AnswerThresholds(model_from, make_from))
    assert sum(p for _, p in told.makes) + told.no_car == pytest.approx(1)
    assert [c.probability for c in told.candidates] == sorted(
        (p for name, p in probabilities.items() if name != NO_CAR), reverse=True
    )
    best = told.candidates[0]
    if told.level is Level.MODEL:
        assert best.probability >= model_from
        assert best.car.make == told.make[0]
    if told.level is Level.MAKE:
        assert told.make[1] >= make_from
    assert (told.level is Level.NO_CAR) == (probabilities[NO_CAR] >= 0.5)
