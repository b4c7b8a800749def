"""The car-model pipeline: from pixels to what can be told."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.car_model.answer import Level
from pipelines.car_model.pipeline import CarModelPipeline, main_car
from pipelines.detector import Detection
from tests.checkpoints import (
    BLUE,
    CAR_HEAD,
    GREEN,
    GREY,
    ORANGE,
    RED,
    YELLOW,
    plain,
    save_car_model,
    vector,
    with_block,
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


@pytest.fixture(scope="module")
def finder(tmp_path_factory: pytest.TempPathFactory) -> CarModelPipeline:
    return CarModelPipeline.load(save_car_model(tmp_path_factory.mktemp("finder"), finds=True))


def test_the_car_is_found_and_cut_out(finder: CarModelPipeline) -> None:
    # Green cells of 64 pixels of the detector's 128 are cars; all around is grey.
    photo = encode(with_block(GREEN, (256, 0, 512, 256), 512, 512), "PNG")
    told = finder.identify(photo)
    assert told.identification.text == "BMW M3 Coupe 2012"
    assert told.car is not None
    assert told.car.box == pytest.approx((256, 0, 512, 256))
    assert told.car.crop == (250, 0, 512, 262), "with 2 % around it, inside of the photograph"
    assert told.cars == 1
    assert told.detector is not None
    assert (told.detector.name, told.classifier.name) == ("cells", "colours")
    blind = CarModelPipeline(finder.classifier).identify(photo)
    cut_out, whole = (one.identification.candidates[0].probability for one in (told, blind))
    assert cut_out > 0.98 > whole, "of all of the photograph a quarter is green"
    assert (blind.car, blind.cars, blind.detector) == (None, 0, None)


def test_of_several_cars_it_is_the_largest(finder: CarModelPipeline) -> None:
    pixels = with_block(GREEN, (256, 0, 512, 256), 512, 512)
    pixels[384:, :128] = RED
    told = finder.identify(encode(pixels, "PNG"))
    assert told.cars == 2
    assert told.car is not None
    assert told.car.box == pytest.approx((256, 0, 512, 256))
    assert told.identification.text == "BMW M3 Coupe 2012"


def test_a_large_unsure_car_gives_way_to_a_sure_one_of_about_its_size() -> None:
    sure = Detection((0, 0, 90, 90), 0.9, "car")
    unsure = Detection((0, 0, 100, 100), 0.4, "car")
    assert main_car([unsure, sure]) is sure
    assert main_car([unsure, Detection((0, 0, 10, 10), 0.99, "car")]) is unsure


def test_where_none_is_found_all_of_the_photograph_is_looked_at(finder: CarModelPipeline) -> None:
    told = finder.identify(encode(plain(YELLOW), "PNG"))
    assert told.identification.text == "Audi TT Coupe 2012"
    assert (told.car, told.cars) == (None, 0)
    assert finder.identify(encode(plain(BLUE), "PNG")).identification.level is Level.NO_CAR


def test_the_map_is_of_what_was_cut_out(finder: CarModelPipeline) -> None:
    photo = encode(with_block(GREEN, (512, 0, 1024, 512), 1024, 1024), "PNG")
    overlay = Image.open(io.BytesIO(finder.identify(photo, with_maps=True).overlay))
    assert overlay.width == overlay.height == 512
    assert np.asarray(overlay)[8:-16, 16:-8, 1].min() > np.asarray(overlay)[8:-16, 16:-8, 2].max()


def test_a_car_is_cut_out_of_what_was_decoded_smaller(finder: CarModelPipeline) -> None:
    photo = with_block(GREEN, (2000, 0, 4000, 2000), 4000, 4000)
    told = finder.identify(encode(photo, "JPEG", quality=95))
    assert told.identification.text == "BMW M3 Coupe 2012"
    assert told.car is not None
    assert told.car.crop == pytest.approx((1960, 0, 4000, 2040), abs=2)


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
