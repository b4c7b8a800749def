"""The car-model pipeline: from pixels to what can be told."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from pipelines.car_model.answer import Level
from pipelines.car_model.pipeline import CarModelPipeline
from tests.checkpoints import (
    BLUE,
    CAR_HEAD,
    GREEN,
    GREY,
    ORANGE,
    YELLOW,
    plain,
    save_car_model,
    vector,
)
from tests.conftest import encode
from utility_gate.errors import CheckpointError, ImageTooSmallError
from utility_gate.images import decode


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> CarModelPipeline:
    return CarModelPipeline.load(save_car_model(tmp_path_factory.mktemp("car")))


@pytest.mark.parametrize(
    ("colour", "level", "text"),
    [
        (GREEN, Level.MODEL, "BMW M3 Coupe 2012"),
        (YELLOW, Level.MODEL, "Audi TT Coupe 2012"),
        (ORANGE, Level.MAKE, "Audi, model unsure"),
        (GREY, Level.UNSURE, "a car, make and model unsure"),
        (BLUE, Level.NO_CAR, "no car"),
    ],
)
def test_what_can_be_told(
    pipeline: CarModelPipeline, colour: tuple[int, int, int], level: Level, text: str
) -> None:
    answer = pipeline.identify(encode(plain(colour), "PNG"))
    assert (answer.identification.level, answer.identification.text) == (level, text)
    assert answer.overlay == b""
    assert answer.image.width == 256


def test_no_car_is_no_candidate(pipeline: CarModelPipeline) -> None:
    told = pipeline.identify(encode(plain(BLUE), "PNG")).identification
    assert len(told.candidates) == 3
    assert all(car.name != "no car" for car in told.candidates)
    assert pipeline.classes == CAR_HEAD.classes[:3]


def test_pixels_that_are_decoded_already_are_taken_too(pipeline: CarModelPipeline) -> None:
    data = encode(plain(GREEN), "PNG")
    assert pipeline.identify(decode(data)) == pipeline.identify(data)


def test_a_map_if_it_is_asked_for(pipeline: CarModelPipeline) -> None:
    answer = pipeline.identify(encode(plain(GREEN, 1000, 500), "PNG"), with_maps=True)
    assert Image.open(io.BytesIO(answer.overlay)).size == (512, 256)


def test_a_thumbnail_is_refused(pipeline: CarModelPipeline) -> None:
    with pytest.raises(ImageTooSmallError, match="at least 32 x 32 pixels, got 1 x 1"):
        pipeline.identify(encode(plain(GREEN, 1, 1), "PNG"))


def test_other_networks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="model_from and make_from"):
        CarModelPipeline.load(save_car_model(tmp_path, thresholds={"make_from": 0.5}))
    grey = vector(plain(GREY), {})
    other = CAR_HEAD.model_copy(update={"name": "type"})
    with pytest.raises(CheckpointError, match="a head 'model'"):
        CarModelPipeline.load(save_car_model(tmp_path, heads=(other,), conformance=(grey,)))
    for name in ("model/BMW M3 Coupe 2012", "model/Saab 900", "make/BMW", ""):
        wrong = vector(plain(GREEN), {name: 0.5})
        with pytest.raises(CheckpointError, match="conformance vector 0"):
            CarModelPipeline.load(save_car_model(tmp_path, conformance=(wrong,)))
