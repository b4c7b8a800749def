"""Suggestions: the lowest quality from which on all is useful, found with few runs."""

from __future__ import annotations

import io
import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.conftest import draw, encode, save_brightness_predictor
from utility_gate import wire
from utility_gate.errors import GateProtocolError, InputError, NotAnImageError
from utility_gate.images import DecodedImage, decode
from utility_gate.measure import estimate_jpeg_quality
from utility_gate.predictor import Look, UtilityPredictor
from utility_gate.suggest import LADDER, Search, Suggester, compress, scale_down, suggest
from utility_gate.types import AdviceKind, PredictorInfo, Rung, Suggestion, Thresholds
from utility_gate.v1 import gate_pb2 as pb

PREDICTOR = PredictorInfo("net", "1", "ab" * 32)


def search(utility_at: dict[int, float] | list[float], ladder: tuple[int, ...] = LADDER) -> Search:
    found = Search(0.5, ladder)
    while (quality := found.next) is not None:
        found.tell(Rung(quality, utility_at[quality], quality))
    return found


def steps(useful_from: int) -> list[float]:
    return [1.0 if quality >= useful_from else 0.0 for quality in range(101)]


@pytest.mark.parametrize("lowest", range(20, 96))
def test_the_lowest_useful_quality_is_found_exactly(lowest: int) -> None:
    found = search(steps(lowest))
    assert found.chosen is not None
    assert found.chosen.quality == lowest
    assert len(found.curve) <= 12


def test_below_the_ladder_nothing_is_tried_and_above_nothing_found() -> None:
    assert search(steps(1)).chosen == Rung(20, 1.0, 20)
    assert search(steps(1), (*LADDER, 5)).chosen == Rung(5, 1.0, 5)
    assert search(steps(11), (*LADDER, 5)).chosen == Rung(11, 1.0, 11)
    none = search(steps(96))
    assert none.chosen is None
    assert [rung.quality for rung in none.curve] == [95]


@given(st.lists(st.booleans(), min_size=101, max_size=101))
def test_all_that_was_tried_above_the_choice_is_useful_and_runs_are_few(useful: list[bool]) -> None:
    found = search([float(one) for one in useful])
    qualities = [rung.quality for rung in found.curve]
    assert qualities == sorted(set(qualities), reverse=True)
    assert len(qualities) <= 12
    if found.chosen is None:
        assert not useful[95]
        return
    above = [rung for rung in found.curve if rung.quality >= found.chosen.quality]
    assert all(rung.utility == 1.0 for rung in above)
    if found.chosen.quality > 20:  # one less was tried, and is not useful
        assert not useful[found.chosen.quality - 1]


def test_utility_that_rises_again_further_down_is_not_taken() -> None:
    dip = steps(20)
    dip[50] = 0.0
    found = search(dip)
    assert found.chosen is not None
    assert found.chosen.quality == 51


@pytest.mark.parametrize("ladder", [(), (50, 50), (0, 50), (101,)])
def test_impossible_ladders_are_refused(ladder: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected distinct JPEG qualities"):
        Search(0.5, ladder)


@pytest.fixture(scope="module")
def brightness(tmp_path_factory: pytest.TempPathFactory) -> UtilityPredictor:
    return UtilityPredictor.load(save_brightness_predictor(tmp_path_factory.mktemp("suggest")))


class QualityJudge:
    """Finds images useful from a JPEG quality on; anything that is no JPEG is useful."""

    def __init__(self, lowest: int, original: float = 1.0) -> None:
        self._lowest, self._original = lowest, original
        self.seen: list[bytes] = []

    def __call__(self, data: bytes) -> Look:
        image = decode(data)
        self.seen.append(data)
        utility = self._original
        if image.luma_quantization is not None:
            utility = float(estimate_jpeg_quality(image.luma_quantization) >= self._lowest)
        return Look(image, np.zeros((8, 8, 3), np.uint8), utility)


def run(suggester: Suggester) -> Suggestion:
    while suggester.step():
        pass
    assert not suggester.step()
    return suggester.result()


def test_what_is_suggested_is_what_was_judged(
    brightness: UtilityPredictor, photo: np.ndarray
) -> None:
    data, judge = encode(photo, "PNG"), QualityJudge(33)
    suggester = Suggester(data, brightness.card, judge)
    suggestion = run(suggester)
    assert suggestion.chosen is not None
    assert suggestion.chosen.quality == 33
    assert suggester.judged == len(judge.seen) == 1 + len(suggestion.curve) <= 13
    assert judge.seen[0] == data
    assert (suggestion.size, suggestion.utility) == (len(data), 1.0)
    assert (suggestion.width, suggestion.height) == (320, 240)
    # The file that `compress` makes is the very one that was judged.
    made = compress(data, 33)
    assert made in judge.seen
    assert suggestion.chosen.size == len(made)
    assert suggestion.saved == len(data) - len(made)
    at_95 = len(compress(data, 95))
    assert suggestion.saved_against(95) == at_95 - len(made)
    assert suggestion.saved_against(99) is None
    assert suggestion.advice == ()


def test_an_image_that_is_not_useful_as_it_came_is_judged_once(
    brightness: UtilityPredictor, photo: np.ndarray
) -> None:
    judge = QualityJudge(1, original=0.1)
    suggestion = run(Suggester(encode(photo, "PNG"), brightness.card, judge))
    assert suggestion.chosen is None
    assert suggestion.curve == ()
    assert suggestion.saved is None
    assert suggestion.utility == 0.1
    assert (suggestion.width, suggestion.height) == (320, 240)
    assert suggestion.advice
    assert len(judge.seen) == 1


def test_one_that_no_compression_leaves_useful_is_to_be_sent_as_it_is(
    brightness: UtilityPredictor, photo: np.ndarray
) -> None:
    suggestion = run(Suggester(encode(photo, "PNG"), brightness.card, QualityJudge(96)))
    assert suggestion.chosen is None
    assert [rung.quality for rung in suggestion.curve] == [95]
    assert [one.kind for one in suggestion.advice] == [AdviceKind.ORIGINAL_FILE]


def test_pixels_have_no_size_of_their_own(brightness: UtilityPredictor, photo: np.ndarray) -> None:
    judge = QualityJudge(21)
    suggestion = run(Suggester(photo, brightness.card, judge))
    assert (suggestion.size, suggestion.utility, suggestion.saved) == (None, None, None)
    assert suggestion.chosen is not None
    assert suggestion.chosen.quality == 21
    assert suggestion.saved_against(95)
    worst = run(Suggester(photo, brightness.card, QualityJudge(99)))
    assert worst.chosen is None
    assert worst.advice
    assert worst.advice[0].kind is not AdviceKind.ORIGINAL_FILE


def test_a_real_predictor_suggests_by_its_own_thresholds(brightness: UtilityPredictor) -> None:
    bright = encode(np.full((64, 64, 3), 200, np.uint8), "PNG")
    suggestion = suggest(brightness, bright)
    assert suggestion.chosen is not None
    assert suggestion.chosen.quality == 20
    assert suggestion.task == "general"
    assert suggestion.predictor == brightness.card.info
    seen = brightness.look(compress(bright, 20))
    assert suggestion.chosen.utility == seen.utility
    strict = suggest(brightness, bright, utility=1.0)
    assert strict.chosen is None
    assert strict.thresholds == Thresholds(useful=1.0, review=0.4)
    dark = suggest(brightness, np.zeros((64, 64, 3), np.uint8))
    assert AdviceKind.BRIGHTER in {one.kind for one in dark.advice}
    with pytest.raises(NotAnImageError):
        suggest(brightness, b"no image")
    with pytest.raises(InputError, match="longest side"):
        suggest(brightness, bright, max_side=-1)
    for wrong in (-0.1, 1.1, float("nan")):
        with pytest.raises(InputError, match="utility in"):
            suggest(brightness, bright, utility=wrong)


@pytest.mark.parametrize(("size", "expected"), [
    ((320, 240), (160, 120)), ((240, 320), (120, 160)), ((160, 10), (160, 10)),
    ((3000, 2), (160, 1)),
])  # fmt: skip
def test_scaling_down_keeps_the_shape_and_never_enlarges(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    scaled = scale_down(np.zeros((size[1], size[0], 3), np.uint8), 160)
    assert scaled.shape[1::-1] == expected
    assert scale_down(scaled, 0) is scaled


def test_a_longest_side_is_kept(brightness: UtilityPredictor, photo: np.ndarray) -> None:
    judge = QualityJudge(5)
    suggestion = run(Suggester(encode(photo, "PNG"), brightness.card, judge, max_side=100))
    assert (suggestion.width, suggestion.height) == (100, 75)
    assert decode(judge.seen[-1]).pixels.shape == (75, 100, 3)
    assert compress(encode(photo, "PNG"), 20, 100) == judge.seen[-1]


def test_what_is_written_is_upright_and_has_no_metadata(tmp_path: Path) -> None:
    scene = Image.fromarray(draw(64, 32))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    exif[0x010E] = "a secret"
    turned = io.BytesIO()
    scene.save(turned, "JPEG", quality=95, exif=exif)
    made = compress(turned.getvalue(), 90)
    opened = Image.open(io.BytesIO(made))
    assert opened.size == (32, 64)
    assert not opened.getexif()
    upright: DecodedImage = decode(turned.getvalue())
    assert np.abs(decode(made).pixels.astype(int) - upright.pixels).mean() < 12
    assert b"secret" not in made


def suggestion(**changes: object) -> Suggestion:
    rungs = (Rung(95, 0.9, 1000), Rung(50, 0.8, 400), Rung(20, 0.1, 200))
    values = {
        "task": "general", "thresholds": Thresholds(0.7, 0.3), "predictor": PREDICTOR,
        "size": 1500, "utility": 0.95, "width": 640, "height": 480, "chosen": rungs[1],
        "curve": rungs,
    }  # fmt: skip
    return Suggestion(**(values | changes))  # type: ignore[arg-type]


def test_suggestions_survive_the_wire(brightness: UtilityPredictor, photo: np.ndarray) -> None:
    none = run(Suggester(encode(photo, "PNG"), brightness.card, QualityJudge(1, original=0.1)))
    pixels = run(Suggester(photo, brightness.card, QualityJudge(20)))
    for sent in (suggestion(), none, pixels):
        message = pb.Suggestion.FromString(wire.from_suggestion(sent).SerializeToString())
        assert wire.to_suggestion(message) == sent
    assert wire.from_suggestion(suggestion()).bytes_after == 400


@pytest.mark.parametrize("changes", [
    {"curve": (Rung(50, 0.8, 400), Rung(95, 0.9, 1000))},
    {"chosen": Rung(51, 0.8, 400)},
    {"chosen": Rung(20, 0.1, 200)},
    {"utility": None},
    {"size": 0},
    {"width": 0},
])  # fmt: skip
def test_a_suggestion_cannot_contradict_itself(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="expected"):
        suggestion(**changes)


def test_an_impossible_suggestion_is_a_protocol_error() -> None:
    with pytest.raises(GateProtocolError):
        wire.to_suggestion(pb.Suggestion())
    message = wire.from_suggestion(suggestion())
    message.quality = 40
    with pytest.raises(GateProtocolError, match="on the curve"):
        wire.to_suggestion(message)


def test_the_default_ladder_costs_at_most_thirteen_runs() -> None:
    gaps = [high - low for high, low in itertools.pairwise(LADDER)]
    for rung, gap in enumerate(gaps, 2):
        assert 1 + rung + int(np.ceil(np.log2(gap))) <= 13
