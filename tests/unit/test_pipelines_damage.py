"""The damage pipeline: regions, their context, one batch, and photographs without a car."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipelines.answers import HeadAnswer, say
from pipelines.classifier import Classifier
from pipelines.damage.pipeline import CONTEXT, MOST_REGIONS, DamagePipeline, Outcome
from pipelines.regions import SMALLEST_CROP, cut, with_context
from tests.checkpoints import (
    BLUE,
    DAMAGE_HEADS,
    GREEN,
    GREY,
    RED,
    plain,
    save_damage,
    with_block,
)
from tests.conftest import encode
from utility_gate.errors import (
    CheckpointError,
    CorruptImageError,
    ImageTooSmallError,
    NotAnImageError,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_damage(tmp_path_factory.mktemp("damage"))


@pytest.fixture(scope="module")
def pipeline(folder: Path) -> DamagePipeline:
    return DamagePipeline.load(folder)


def png(pixels: np.ndarray) -> bytes:
    return encode(pixels, "PNG")


edges = st.floats(0, 1, allow_nan=False)


@given(st.integers(2, 4000), st.integers(2, 4000), edges, edges, edges, edges)
def test_a_crop_holds_the_region_with_context_and_stays_inside(
    width: int, height: int, left: float, top: float, w: float, h: float
) -> None:
    x, y = left * (width - 2), top * (height - 2)
    box = (x, y, x + 2 + w * (width - 2 - x), y + 2 + h * (height - 2 - y))
    crop = with_context(box, (width, height), CONTEXT)
    for low, high, length in ((0, 2, width), (1, 3, height)):
        side = box[high] - box[low]
        assert 0 <= crop[low] < crop[high] <= length
        assert crop[low] <= max(0, box[low] - CONTEXT * side)
        assert crop[high] >= min(length, box[high] + CONTEXT * side)
        assert crop[high] - crop[low] >= min(SMALLEST_CROP, length)
        assert crop[high] - crop[low] <= max(1.5 * side, SMALLEST_CROP) + 2


@given(st.integers(1, 500), st.integers(1, 500), st.integers(1, 9))
def test_a_crop_of_scaled_pixels_is_never_empty(width: int, height: int, scale: int) -> None:
    pixels = np.zeros((-(-height // scale), -(-width // scale), 3), np.uint8)
    for crop in ((0, 0, width, height), (width - 1, height - 1, width, height), (0, 0, 1, 1)):
        assert 0 not in cut(pixels, crop, (width, height)).shape
    assert cut(pixels, (0, 0, width, height), (width, height)).shape == pixels.shape


def test_a_damaged_car(pipeline: DamagePipeline) -> None:
    found = pipeline.assess(png(with_block(RED)))
    assert found.outcome is Outcome.DAMAGED
    (region,) = found.regions
    assert region.box == pytest.approx((64, 64, 128, 128))
    assert region.crop == (48, 48, 144, 144)
    assert region.label == "scratch"
    assert region.score == pytest.approx(0.93, abs=0.01)
    kinds = {head.head: head.best[0] for head in region.heads}
    assert kinds == {"type": "door_scratch", "severity": "severe", "location": "rear"}
    assert found.whole[0].best[0] == "none"
    assert (found.image.width, found.image.height, found.image.format) == (256, 256, "PNG")
    assert (found.detector.name, found.classifier.name) == ("cells", "colours")
    assert found.text.startswith("1 damaged region: scratch (0.93), type door_scratch (0.80)")
    assert [answer.overlay for answer in (*found.whole, *region.heads)] == [b""] * 6


def test_probabilities_of_a_head_are_ranked_and_sum_to_one(pipeline: DamagePipeline) -> None:
    for answer in pipeline.assess(png(plain(GREEN))).whole:
        values = [p for _, p in answer.classes]
        assert values == sorted(values, reverse=True)
        if not answer.multi_label:
            assert sum(values) == pytest.approx(1)
    cards = {head.name: set(head.classes) for head in DAMAGE_HEADS}
    whole = pipeline.assess(png(plain(GREEN))).whole
    assert {a.head: {name for name, _ in a.classes} for a in whole} == cards


def test_an_undamaged_car_has_no_region(pipeline: DamagePipeline) -> None:
    found = pipeline.assess(png(plain(GREY)))
    assert (found.outcome, found.regions) == (Outcome.NO_REGION, ())
    assert found.text.startswith("no damaged region; the whole photograph: type none")


def test_without_a_car_regions_are_not_reported(pipeline: DamagePipeline) -> None:
    pixels = plain(BLUE)
    pixels[64:128, 64:128] = RED
    assert pipeline.detector.detect(pixels), "the detector is deceived"
    found = pipeline.assess(png(pixels), with_maps=True)
    assert (found.outcome, found.regions, found.text) == (Outcome.NO_CAR, (), "no car")
    assert found.whole[0].best[0] == "no_car"
    assert found.whole[0].overlay


def test_all_crops_go_in_one_batch_with_the_whole(
    pipeline: DamagePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[list[tuple[int, ...]]] = []
    classify = Classifier.classify

    def watched(self: Classifier, images: Sequence[Any]) -> Any:
        batches.append([image.shape for image in images])
        return classify(self, images)

    monkeypatch.setattr(Classifier, "classify", watched)
    found = pipeline.assess(png(plain(RED)))
    assert len(found.regions) == MOST_REGIONS
    assert len(batches) == 1
    assert batches[0][0] == (256, 256, 3)
    assert len(batches[0]) == 1 + MOST_REGIONS
    scores = [region.score for region in found.regions]
    assert scores == sorted(scores, reverse=True)


def test_maps_show_what_was_classified(pipeline: DamagePipeline) -> None:
    found = pipeline.assess(png(with_block(RED, width=512)), with_maps=False)
    assert not found.whole[0].overlay
    found = pipeline.assess(png(with_block(RED)), with_maps=True)
    sizes = [Image.open(io.BytesIO(head.overlay)).size for head in found.regions[0].heads]
    assert sizes == [(224, 224)] * 3
    assert Image.open(io.BytesIO(found.whole[0].overlay)).size == (256, 256)
    drawn = np.asarray(Image.open(io.BytesIO(found.regions[0].heads[0].overlay))).astype(int)
    glow = np.abs(drawn - np.asarray(GREY)).sum(2)
    assert drawn[112, 112].tolist() != list(RED), "red is where the network looked"
    assert glow[0, 0] < 40


def test_overlays_of_many_regions_fit_into_a_message(pipeline: DamagePipeline) -> None:
    noise = np.random.default_rng(0).integers(0, 60, (800, 800, 3), dtype=np.uint8)
    noise[..., 0] += 195
    found = pipeline.assess(png(noise), with_maps=True)
    assert len(found.regions) == MOST_REGIONS
    overlays = [h.overlay for r in found.regions for h in r.heads]
    overlays += [head.overlay for head in found.whole]
    assert 100_000 < sum(map(len, overlays)) < 3 * 1024 * 1024


def test_a_photograph_that_was_scaled_while_decoding_is_told_in_its_own_pixels(
    pipeline: DamagePipeline,
) -> None:
    pixels = with_block(RED, (512, 512, 1024, 1024), 2048, 2048)
    data = encode(pixels, quality=95)
    assert pipeline.decode(data).pixels.shape[0] < 2048
    found = pipeline.assess(data)
    (region,) = found.regions
    assert region.box == pytest.approx((512, 512, 1024, 1024), abs=16)
    assert region.crop == (384, 384, 1152, 1152)
    assert found.image.width == 2048
    assert region.heads[0].best[0] == "door_scratch"


def test_another_input_size_finds_other_things(folder: Path) -> None:
    data = png(with_block(RED, (32, 0, 64, 32)))
    assert DamagePipeline.load(folder).assess(data).outcome is Outcome.NO_REGION
    assert DamagePipeline.load(folder, side=256).assess(data).outcome is Outcome.DAMAGED


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", NotAnImageError),
        (b"no image", NotAnImageError),
        (encode(plain(GREY), quality=90)[:400], CorruptImageError),
        (encode(plain(GREY, 1, 1), "PNG"), ImageTooSmallError),
        (encode(plain(GREY, 31, 400), "PNG"), ImageTooSmallError),
    ],
)
def test_bytes_that_are_no_photograph(
    pipeline: DamagePipeline, data: bytes, error: type[Exception]
) -> None:
    with pytest.raises(error):
        pipeline.assess(data)
    pipeline.assess(encode(plain(GREY, 32, 400), "PNG"))


def test_a_classifier_that_knows_no_cars_only_says_what_it_knows(tmp_path: Path) -> None:
    heads = (
        DAMAGE_HEADS[0].model_copy(update={"classes": ("door_scratch", "door_dent", "none", "x")}),
        *DAMAGE_HEADS[1:],
    )
    pipeline = DamagePipeline.load(save_damage(tmp_path, heads=heads))
    assert pipeline.assess(png(plain(BLUE))).outcome is Outcome.NO_REGION


def test_a_pipeline_that_is_not_there_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="expected a folder"):
        DamagePipeline.load(tmp_path / "nothing")
    with pytest.raises(CheckpointError, match=r"card\.json"):
        DamagePipeline.load(tmp_path)


def test_a_damaged_network_is_refused(tmp_path: Path) -> None:
    save_damage(tmp_path)
    model = tmp_path / "classifier" / "model.onnx"
    model.write_bytes(model.read_bytes() + b"\0")
    with pytest.raises(CheckpointError, match="SHA-256"):
        DamagePipeline.load(tmp_path)


def test_of_several_labels_those_are_said_that_are_likely() -> None:
    both = HeadAnswer("location", (("front", 0.9), ("rear", 0.6), ("side", 0.2)), multi_label=True)
    none = HeadAnswer("location", (("front", 0.4),), multi_label=True)
    assert say([both]) == "location front (0.90) and rear (0.60)"
    assert say([none]) == "location unknown"
