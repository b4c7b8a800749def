"""Advice: what to do about an image that is not useful, from what is known of it alone."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from PIL import Image

from tests.conftest import draw, encode
from utility_gate.advice import HIGHEST, MODEL, QualityModel, advise, advise_on
from utility_gate.images import DecodedImage, decode, encode_jpeg
from utility_gate.measure import MeasureLimits, blocking, measure
from utility_gate.preprocess import Preprocess
from utility_gate.types import Advice, AdviceKind, Reason, ReasonKind, Thresholds

THRESHOLDS = Thresholds(useful=0.5, review=0.2)
CROP = Preprocess(resize=224, crop=224)


def reason(kind: ReasonKind, threshold: float = 5.0) -> Reason:
    return Reason(kind, 1.0, threshold, "")


def kinds(*reasons: Reason, utility: float = 0.1, **known: object) -> list[AdviceKind]:
    values = {"quality": None, "blocks": 0.0, "side": 300, "wanted_side": 224} | known
    return [one.kind for one in advise(reasons, utility, THRESHOLDS, **values)]  # type: ignore[arg-type]


def advice_on(pixels: np.ndarray, utility: float = 0.1, quality: int = 90) -> tuple[Advice, ...]:
    image = decode(encode_jpeg(pixels, quality))
    reasons = measure(image, CROP.crop_pixels(image.pixels), MeasureLimits())
    return advise_on(image, reasons, utility, THRESHOLDS, 224)


@pytest.mark.parametrize("utility", [0.5, 0.51, 1.0])
def test_a_useful_image_needs_no_advice(utility: float) -> None:
    assert kinds(reason(ReasonKind.TOO_DARK), utility=utility, quality=5, side=8) == []


@pytest.mark.parametrize("utility", [0.0, 0.1, 0.3, 0.4999])
def test_whatever_else_is_not_useful_has_some(utility: float) -> None:
    assert kinds(utility=utility) == [AdviceKind.ANOTHER_PHOTOGRAPH]
    for quality in (1, 10, 50, 95, 100, None):
        assert kinds(utility=utility, quality=quality)


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        (ReasonKind.TOO_DARK, AdviceKind.BRIGHTER),
        (ReasonKind.TOO_BRIGHT, AdviceKind.DARKER),
        (ReasonKind.LOW_CONTRAST, AdviceKind.MORE_CONTRAST),
        (ReasonKind.BLURRED, AdviceKind.SHARPER),
    ],
)
def test_what_was_measured_names_what_to_reach(given: ReasonKind, kind: AdviceKind) -> None:
    (one,) = advise(
        (reason(ReasonKind.LOW_UTILITY), reason(given, 25.0)), 0.1, THRESHOLDS,
        quality=None, blocks=0.0, side=300, wanted_side=224,
    )  # fmt: skip
    assert (one.kind, one.value) == (kind, 25.0)
    assert one.message.startswith("send ")


def test_a_side_that_is_enlarged_is_to_be_larger() -> None:
    assert kinds(side=223) == [AdviceKind.LARGER]
    assert kinds(side=224) == [AdviceKind.ANOTHER_PHOTOGRAPH]
    too_small = reason(ReasonKind.TOO_SMALL, 64.0)  # of a predictor that wants less
    (one,) = advise((too_small,), 0.1, THRESHOLDS, quality=None, blocks=0, side=40, wanted_side=32)
    assert one.value == 64
    (one,) = advise((), 0.1, THRESHOLDS, quality=None, blocks=0, side=100, wanted_side=224)
    assert one.value == 224
    assert "224 pixels or more: this one has 100" in one.message


def test_the_model_by_hand() -> None:
    model = QualityModel(bias=-2.0, distance=0.5, now=-1.0, both=0.0, then=1.0, enough=0.5)
    # logit = -2 + 0.5 * -1 - ln 10 + ln 95
    expected = 1 / (1 + math.exp(2.5 + math.log(10) - math.log(95)))
    assert model.chance(10, -1.0, 95) == pytest.approx(expected)
    # 0 = -2.5 - ln q + ln a gives a = q * e^2.5 = 12.18 q, rounded up to a step of 5
    assert model.reach(5, -1.0) == 65
    assert model.reach(10, -1.0) == HIGHEST
    sure = QualityModel(bias=50.0, distance=0.0, now=0.0, both=0.0, then=1.0)
    assert (sure.reach(10, 0.0), sure.reach(12, 0.0), sure.reach(94, 0.0)) == (15, 15, 95)


def test_the_quality_advised_rises_with_what_is_missing() -> None:
    for quality in (5, 10, 15, 20):
        advised = [MODEL.reach(quality, distance) for distance in (-0.1, -1.0, -2.0, -4.0)]
        assert advised == sorted(advised)
        assert all(quality < one <= HIGHEST and one % 5 == 0 for one in advised)
    assert MODEL.reach(5, -0.5) < MODEL.reach(10, -0.5) < MODEL.reach(20, -0.5)


def test_compression_is_blamed_only_where_less_of_it_is_likely_to_help() -> None:
    assert kinds(utility=0.4, quality=10) == [AdviceKind.HIGHER_QUALITY]
    assert kinds(utility=0.01, quality=70) == [AdviceKind.ANOTHER_PHOTOGRAPH]
    # A quality that was found too low is told, however small the hope.
    low = reason(ReasonKind.LOW_JPEG_QUALITY)
    assert kinds(low, utility=0.0001, quality=19) == [AdviceKind.HIGHER_QUALITY]
    assert kinds(utility=0.4, quality=HIGHEST) == [AdviceKind.ANOTHER_PHOTOGRAPH]


def test_blocks_in_a_file_that_should_have_none_ask_for_the_original() -> None:
    assert kinds(blocks=1.0) == [AdviceKind.ORIGINAL_FILE]
    assert kinds(blocks=1.0, quality=96) == [AdviceKind.ORIGINAL_FILE]
    assert kinds(blocks=0.2, quality=96) == [AdviceKind.ANOTHER_PHOTOGRAPH]
    assert AdviceKind.ORIGINAL_FILE not in kinds(blocks=1.0, quality=10)


def test_each_defect_of_a_photograph_leads_to_its_advice(photo: np.ndarray) -> None:
    def first(pixels: np.ndarray, **how: object) -> AdviceKind:
        return advice_on(pixels, **how)[0].kind  # type: ignore[arg-type]

    assert first(photo) is AdviceKind.ANOTHER_PHOTOGRAPH
    assert first(photo, quality=8) is AdviceKind.HIGHER_QUALITY
    assert first(photo[:100, :100]) is AdviceKind.LARGER
    assert AdviceKind.BRIGHTER in {a.kind for a in advice_on((photo * 0.05).astype(np.uint8))}
    blurred = np.asarray(Image.fromarray(photo).resize((24, 18)).resize((320, 240)))
    assert AdviceKind.SHARPER in {a.kind for a in advice_on(blurred)}
    saved_again = decode(encode_jpeg(photo, 8)).pixels
    assert first(saved_again, quality=95) is AdviceKind.ORIGINAL_FILE


@pytest.mark.parametrize(
    "form", [("PNG", {}), ("JPEG", {"quality": 96}), ("WEBP", {"quality": 95})]
)
def test_blocks_are_seen_whatever_the_file_says(
    photo: np.ndarray, form: tuple[str, dict[str, int]]
) -> None:
    name, options = form
    assert blocking(decode(encode(photo, name, **options))) < 0.2
    again = decode(encode_jpeg(photo, 8)).pixels
    assert blocking(decode(encode(again, name, **options))) > 0.5
    cropped = np.ascontiguousarray(again[3:, 5:])
    assert blocking(decode(encode(cropped, name, **options))) > 0.5


def test_blocks_are_seen_in_an_image_that_was_scaled_while_it_was_decoded() -> None:
    large = draw(1280, 960)
    again = encode_jpeg(decode(encode_jpeg(large, 5)).pixels, 95)
    scaled = decode(again, scale_to=400)
    assert scaled.pixels.shape[1] == 640
    assert blocking(scaled) > 0.4
    assert blocking(decode(encode_jpeg(large, 95), scale_to=400)) < 0.2
    assert blocking(decode(again, scale_to=100)) == 0.0  # an eighth: nothing left of the blocks


@pytest.mark.parametrize("size", [(1, 1), (2, 300), (300, 2), (9, 9), (70, 70)])
def test_any_size_can_be_asked_for_blocks(size: tuple[int, int]) -> None:
    flat = DecodedImage(np.zeros((*size, 3), np.uint8), "PNG", size[1], size[0], None)
    assert blocking(flat) == 0.0


def test_advice_costs_no_time_to_speak_of(photo: np.ndarray) -> None:
    image = decode(encode_jpeg(photo, 95))
    started = time.perf_counter()
    for _ in range(100):
        advise_on(image, (), 0.1, THRESHOLDS, 224)
    # About 0.1 ms at worst, where an image takes about 10; a busy machine may take longer.
    assert (time.perf_counter() - started) / 100 < 0.002


def test_advice_has_a_finite_value_or_none() -> None:
    Advice(AdviceKind.ORIGINAL_FILE, None, "")
    with pytest.raises(ValueError, match="finite advice value"):
        Advice(AdviceKind.LARGER, math.nan, "")
