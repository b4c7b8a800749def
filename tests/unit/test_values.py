"""Values validate themselves; wire converters come back as they went; measurements measure."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from tests.conftest import draw, encode
from utility_gate import wire
from utility_gate.degrade import DEFAULT_QUALITIES, Jpeg, ladder
from utility_gate.errors import GateProtocolError
from utility_gate.files import find_images
from utility_gate.images import decode, encode_jpeg
from utility_gate.measure import MeasureLimits, estimate_jpeg_quality, libjpeg_luma, measure
from utility_gate.preprocess import Preprocess
from utility_gate.split import split_of, unit_hash
from utility_gate.types import (
    Advice,
    AdviceKind,
    Decision,
    GateInfo,
    ImageInfo,
    PredictorInfo,
    Reason,
    ReasonKind,
    TaskInfo,
    Thresholds,
    Verdict,
)
from utility_gate.v1 import gate_pb2 as pb

PREDICTOR = PredictorInfo("net", "1.2", "ab" * 32)


def verdict(utility: float = 0.5, thresholds: Thresholds | None = None) -> Verdict:
    thresholds = thresholds or Thresholds(useful=0.7, review=0.3)
    return Verdict(
        task="general",
        utility=utility,
        decision=thresholds.decide(utility),
        thresholds=thresholds,
        reasons=tuple(Reason(kind, 1.5, 2.5, f"{kind}!") for kind in ReasonKind),
        predictor=PREDICTOR,
        image=ImageInfo("WEBP", 640, 480),
        advice=tuple(
            Advice(kind, None if n % 2 else n, f"{kind}!") for n, kind in enumerate(AdviceKind)
        ),
    )


@pytest.mark.parametrize(
    ("utility", "decision"),
    [
        (0.0, Decision.NON_USEFUL),
        (0.2999, Decision.NON_USEFUL),
        (0.3, Decision.REVIEW),
        (0.6999, Decision.REVIEW),
        (0.7, Decision.USEFUL),
        (1.0, Decision.USEFUL),
    ],
)
def test_thresholds_decide(utility: float, decision: Decision) -> None:
    assert Thresholds(useful=0.7, review=0.3).decide(utility) is decision


def test_without_a_band_there_is_no_review() -> None:
    assert Thresholds(useful=0.5, review=0.5).decide(0.4999) is Decision.NON_USEFUL
    assert Thresholds(useful=0.5, review=0.5).decide(0.5) is Decision.USEFUL


@pytest.mark.parametrize(("useful", "review"), [(0.3, 0.7), (1.1, 0.5), (0.5, float("nan"))])
def test_impossible_thresholds_are_refused(useful: float, review: float) -> None:
    with pytest.raises(ValueError, match="expected"):
        Thresholds(useful=useful, review=review)


def test_a_verdict_cannot_contradict_itself() -> None:
    good = verdict(0.9)
    with pytest.raises(ValueError, match="decision USEFUL"):
        Verdict("general", 0.9, Decision.REVIEW, good.thresholds, (), PREDICTOR, good.image)
    with pytest.raises(ValueError, match="utility in"):
        Verdict("general", 1.5, Decision.USEFUL, good.thresholds, (), PREDICTOR, good.image)


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_verdicts_survive_the_wire(utility: float, one: float, other: float) -> None:
    sent = verdict(utility, Thresholds(useful=max(one, other), review=min(one, other)))
    assert (
        wire.to_verdict(pb.Verdict.FromString(wire.from_verdict(sent).SerializeToString())) == sent
    )


def test_info_survives_the_wire() -> None:
    task = TaskInfo("damage", Thresholds(useful=0.6, review=0.2), PREDICTOR)
    sent = GateInfo("0.1", (task,), 1000, 2000, ("JPEG", "PNG", "WEBP"))
    assert wire.to_info(wire.from_info(sent)) == sent


def test_an_unknown_reason_of_a_newer_gate_is_passed_over() -> None:
    message = wire.from_verdict(verdict())
    message.reasons.add(kind=99, message="from the future")  # type: ignore[arg-type]
    assert len(wire.to_verdict(message).reasons) == len(ReasonKind)


def test_unknown_advice_is_passed_over_and_an_older_gate_gives_none() -> None:
    message = wire.from_verdict(verdict())
    message.advice.add(kind=99, message="from the future")  # type: ignore[arg-type]
    assert len(wire.to_verdict(message).advice) == len(AdviceKind)
    del message.advice[:]
    assert wire.to_verdict(message).advice == ()


def test_an_impossible_message_is_a_protocol_error() -> None:
    message = wire.from_verdict(verdict())
    message.utility = 7
    with pytest.raises(GateProtocolError, match="utility in"):
        wire.to_verdict(message)
    with pytest.raises(GateProtocolError):
        wire.to_verdict(pb.Verdict())


@pytest.mark.parametrize("quality", range(1, 101))
def test_jpeg_quality_is_read_exactly_from_libjpeg_files(quality: int) -> None:
    table = decode(encode_jpeg(draw(32, 32), quality)).luma_quantization
    assert table is not None
    assert estimate_jpeg_quality(table) == quality or set(table) == {1}


def test_libjpeg_scaling_by_hand() -> None:
    # quality 50 is the standard's table itself; 25 doubles it; 1 is clipped at 255.
    assert libjpeg_luma(50)[:3].tolist() == [16, 11, 10]
    assert libjpeg_luma(25)[:3].tolist() == [32, 22, 20]
    assert libjpeg_luma(1).max() == 255


def reasons_of(pixels: np.ndarray, quality: int = 90) -> dict[ReasonKind, Reason]:
    image = decode(encode_jpeg(pixels, quality))
    crop = Preprocess(resize=224, crop=224).crop_pixels(image.pixels)
    return {reason.kind: reason for reason in measure(image, crop, MeasureLimits())}


def test_a_good_photograph_has_no_reasons(photo: np.ndarray) -> None:
    assert reasons_of(photo) == {}


def test_each_defect_is_named_with_its_value(photo: np.ndarray) -> None:
    assert reasons_of(photo, 7)[ReasonKind.LOW_JPEG_QUALITY].value == 7
    assert reasons_of(photo[:40, :40])[ReasonKind.TOO_SMALL].value == 40
    assert ReasonKind.TOO_DARK in reasons_of((photo * 0.05).astype(np.uint8))
    assert ReasonKind.TOO_BRIGHT in reasons_of((240 + photo * 0.05).astype(np.uint8))
    flat = reasons_of((120 + photo * 0.03).astype(np.uint8))
    assert ReasonKind.LOW_CONTRAST in flat
    blurred = np.asarray(Image.fromarray(photo).filter(ImageFilter.GaussianBlur(9)))
    reason = reasons_of(blurred)[ReasonKind.BLURRED]
    assert reason.value < reason.threshold
    assert "below" in reason.message


def test_measuring_one_pixel_is_finite() -> None:
    reasons = reasons_of(np.zeros((1, 1, 3), np.uint8))
    assert reasons[ReasonKind.TOO_SMALL].value == 1


def test_ladder_is_ordered_and_validated() -> None:
    assert len(DEFAULT_QUALITIES) == 9
    assert [jpeg.quality for jpeg in ladder((5, 90, 30))] == [90, 30, 5]
    for wrong in ((), (5, 5), (0,), (101,)):
        with pytest.raises(ValueError, match="expected"):
            ladder(wrong)
    assert Jpeg(30).apply(draw()) == Jpeg(30).apply(draw())


def test_preprocessing_has_torchvisions_geometry() -> None:
    transforms = pytest.importorskip("torchvision.transforms.v2")
    for width, height in ((500, 375), (375, 500), (301, 299), (224, 1000), (90, 64)):
        pixels = draw(width, height)
        reference = transforms.Compose([transforms.Resize(256, interpolation=3),
                                        transforms.CenterCrop(224)])  # fmt: skip
        expected = np.asarray(reference(Image.fromarray(pixels)), float)
        ours = Preprocess(resize=256, crop=224).crop_pixels(pixels).astype(float)
        # Only the outermost pixels differ: there the filter would reach beyond the crop.
        assert np.abs(ours - expected)[4:-4, 4:-4].mean() < 0.35
        assert np.abs(ours - expected).mean() < 0.6


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_normalising_is_minus_mean_by_std_to_the_bit(layout: str, order: str) -> None:
    crops = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8)
    before = crops.copy()
    mean, std = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
    made = Preprocess(8, 8, mean, std, order=order, layout=layout).normalize(crops)
    channels = crops[..., ::-1] if order == "bgr" else crops
    plain = (channels.astype(np.float32) - np.float32(mean)) / np.float32(std)
    plain = plain.transpose(0, 3, 1, 2) if layout == "nchw" else plain
    assert made.dtype == np.float32
    assert made.flags.c_contiguous
    assert made.tobytes() == np.ascontiguousarray(plain).tobytes()
    assert (crops == before).all(), "the caller's pixels stay as they are"


def test_normalisation_order_and_layout() -> None:
    crop = np.zeros((1, 2, 2, 3), np.uint8)
    crop[..., 0] = 200
    rgb = Preprocess(resize=2, crop=2, mean=(100, 0, 0), std=(50, 1, 1)).normalize(crop)
    assert rgb.shape == (1, 3, 2, 2)
    assert rgb.dtype == np.float32
    assert rgb[0, :, 0, 0].tolist() == [2.0, 0.0, 0.0]
    bgr = Preprocess(resize=2, crop=2, order="bgr", layout="nhwc", dtype="uint8").normalize(crop)
    assert bgr.shape == (1, 2, 2, 3)
    assert bgr[0, 0, 0].tolist() == [0, 0, 200]
    assert bgr.dtype == np.uint8


@pytest.mark.parametrize(
    "wrong",
    [
        {"resize": 100, "crop": 200},
        {"resize": 10, "crop": 10, "std": (1.0, 0.0, 1.0)},
        {"resize": 10, "crop": 10, "order": "hsv"},
        {"resize": 10, "crop": 10, "dtype": "uint8", "mean": (1.0, 1.0, 1.0)},
    ],
)
def test_impossible_preprocessing_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="expected"):
        Preprocess(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (3000, 2), (224, 224)])
def test_any_size_can_be_cropped(size: tuple[int, int]) -> None:
    crop = Preprocess(resize=256, crop=224).crop_pixels(np.zeros((*size, 3), np.uint8))
    assert crop.shape == (224, 224, 3)


def test_the_split_is_stable_and_about_a_fifth() -> None:
    sides = [split_of(f"{number:064x}") for number in range(2000)]
    assert 0.17 < sides.count("test") / 2000 < 0.23
    assert unit_hash("split", "x") == unit_hash("split", "x") != unit_hash("split", "y")


def test_images_are_found_in_order(tmp_path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "b").mkdir()
    for name in ("b/z.PNG", "a.jpg", "notes.txt"):
        (tmp_path / name).write_bytes(encode(draw(8, 8), "PNG"))
    assert [path.name for path in find_images([tmp_path])] == ["a.jpg", "z.PNG"]
