"""What a gate is worth: arithmetic checked by hand, the job with voices that are known."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import draw, encode
from tests.gates import VERDICT
from utility_gate.errors import ConfigError, TableError
from utility_gate.files import digest_bytes
from utility_gate.images import decode
from utility_gate.split import split_of
from utility_gate.statistics import Interval
from utility_gate.types import Decision, Mode, Thresholds, Verdict
from utility_gate.value.arithmetic import (
    LIMIT,
    ORACLE,
    QUALITY,
    RANDOM,
    UTILITY,
    Trials,
    Worth,
    error_curve,
    gain,
    partial_area,
    weigh,
)
from utility_gate.value.job import (
    Decided,
    Photograph,
    choose,
    read_labels,
    run,
    to_trials,
    write_judged,
)
from utility_gate.value.page import Setting, _number, to_json, to_markdown


def trials(**changes: Any) -> Trials:
    """Four copies, two of each of two photographs."""
    values = {
        "sources": np.array([0, 0, 1, 1]),
        "qualities": np.array([90, 10, 90, 10]),
        "file_qualities": np.array([90.0, 10.0, 90.0, 10.0]),
        "correct": np.array([True, False, True, False]),
        "passed": np.array([True, False, True, True]),
        "utilities": np.array([0.9, 0.1, 0.8, 0.4]),
        "gate_ms": np.array([10.0, 9.0, 11.0, 10.0]),
        "pipeline_ms": np.array([40.0, 39.0, 41.0, 40.0]),
    }
    return Trials(**(values | changes))


def weighed(trials: Trials) -> Worth:
    """With few draws: for tests that do not ask for intervals."""
    return weigh(trials, draws=20)


def curve(wrong: list[int], scores: list[float], at: list[float], **how: Any) -> list[float]:
    found = error_curve(np.array(wrong, bool), np.array(scores), np.array(at), **how)
    return [float(value) for value in found]


class TestCurve:
    def test_errors_that_are_discarded_first(self) -> None:
        # 2 of 4 wrong; 1 of 3 after one is gone, none after two; halfway to the first 1.5 of 3.5
        found = curve([1, 1, 0, 0], [0.1, 0.2, 0.3, 0.4], [0.0, 0.125, 0.25, 0.5, 0.75])
        assert found == pytest.approx([0.5, 1.5 / 3.5, 1 / 3, 0.0, 0.0])

    def test_errors_that_are_discarded_last(self) -> None:
        assert curve([0, 0, 1, 1], [1, 2, 3, 4], [0.0, 0.25, 0.5]) == pytest.approx([0.5, 2 / 3, 1])

    def test_copies_of_one_score_go_in_random_order(self) -> None:
        assert curve([1, 0, 1, 0], [7, 7, 7, 7], [0.0, 0.3, 0.9]) == pytest.approx([0.5] * 3)
        # the lower two hold one error: half of it is gone with one of them
        found = curve([1, 0, 0, 0], [1, 1, 2, 2], [0.0, 0.25, 0.5])
        assert found == pytest.approx([0.25, 0.5 / 3, 0.0])
        assert found == pytest.approx(curve([0, 1, 0, 0], [1, 1, 2, 2], [0.0, 0.25, 0.5]))

    def test_weights_count_copies_several_times(self) -> None:
        at = [0.0, 0.2, 0.4, 0.7]
        weighed = curve([1, 0, 1], [1, 2, 3], at, weights=np.array([2.0, 0.0, 1.0]))
        assert weighed == pytest.approx(curve([1, 1, 1], [1, 1, 3], at))
        assert curve([1, 0, 0], [1, 2, 3], at, weights=np.array([1.0, 2.0, 1.0])) == pytest.approx(
            curve([1, 0, 0, 0], [1, 2, 2, 3], at)
        )

    def test_the_area_by_hand(self) -> None:
        # (2 - 4d) / (4 - 4d) is 1 - 1 / (2 (1 - d)), whose mean up to 1/2 is 1 - ln 2
        at = np.linspace(0, 0.5, 201)
        found = error_curve(np.array([1, 1, 0, 0], bool), np.arange(4.0), at)
        assert partial_area(found, at) == pytest.approx(1 - math.log(2), abs=1e-5)

    @given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=1, max_size=40))
    def test_every_gate_lies_between_the_oracle_and_its_opposite(
        self, copies: list[tuple[bool, int]]
    ) -> None:
        wrong = np.array([one for one, _ in copies])
        at = np.linspace(0, LIMIT, 21)
        best, own, none, worst = (
            partial_area(error_curve(wrong, np.asarray(scores, float), at), at)
            for scores in (~wrong, [s for _, s in copies], np.zeros(len(wrong)), wrong)
        )
        assert best - 1e-9 <= own <= worst + 1e-9
        assert none == pytest.approx(wrong.mean())
        assert best <= none + 1e-9

    def test_gain(self) -> None:
        assert gain(0.3, random=0.3, oracle=0.1) == 0
        assert gain(0.1, random=0.3, oracle=0.1) == 1
        assert gain(0.4, random=0.3, oracle=0.1) == pytest.approx(-0.5)
        assert math.isnan(gain(0.0, random=0.0, oracle=0.0))


class TestWeigh:
    def test_the_numbers_by_hand(self) -> None:
        worth = weighed(trials())
        assert (worth.sources, worth.copies) == (2, 4)
        assert worth.accuracy.value == 0.5
        assert worth.passed.value == 0.75
        assert worth.accuracy_passed.value == pytest.approx(2 / 3)
        assert worth.rise.value == pytest.approx(1 / 6)
        assert worth.errors_stopped.value == 0.5
        assert worth.correct_stopped.value == 0.0
        best, worst = worth.steps
        assert (best.quality, best.copies, best.accuracy.value, best.passed.value) == (90, 2, 1, 1)
        assert (worst.quality, worst.accuracy.value, worst.passed.value) == (10, 0, 0.5)
        assert worst.accuracy_passed.value == 0

    def test_costs_by_hand(self) -> None:
        cost = weighed(trials()).cost
        assert (cost.gate_ms, cost.pipeline_ms, cost.break_even) == (10, 40, 0.25)
        # behind the gate an image takes 10 + 0.75 * 40 = 40 ms: as much as without it
        assert cost.saved.value == pytest.approx(0.0)
        assert cost.per_correct_without.value == pytest.approx(80)
        # 40 ms an image, and 0.75 * 2/3 of them are decided rightly
        assert cost.per_correct_with.value == pytest.approx(80)
        assert cost.per_correct_saved.value == pytest.approx(0.0)
        more = weighed(trials(passed=np.array([True, False, True, False]))).cost
        assert more.saved.value == pytest.approx(0.25)
        assert more.per_correct_with.value == pytest.approx((10 + 20) / 0.5)

    def test_areas_by_hand(self) -> None:
        areas = {each.gate: each for each in weighed(trials()).areas}
        assert areas[RANDOM].area.value == pytest.approx(0.5)
        oracle = 1 - math.log(2)
        for gate in (ORACLE, UTILITY, QUALITY):  # all three discard the two errors first
            assert areas[gate].area.value == pytest.approx(oracle, abs=1e-5)
            assert areas[gate].gain.value == pytest.approx(1)
        # at the quarter that our gate stops
        assert areas[UTILITY].error_at_stopped.value == pytest.approx(1 / 3)
        assert areas[RANDOM].error_at_stopped.value == pytest.approx(0.5)

    def test_a_gate_is_compared_with_the_quality_in_the_file(self) -> None:
        worth = weighed(trials(file_qualities=np.array([10.0, 90.0, 10.0, 90.0])))
        areas = {each.gate: each for each in worth.areas}
        assert areas[QUALITY].gain.value < 0
        expected = areas[QUALITY].area.value - areas[UTILITY].area.value
        assert worth.ahead_of_quality.value == pytest.approx(expected)
        assert worth.ahead_of_quality.value > 0
        assert len(worth.discarded) == len(worth.curves[UTILITY]) == 201
        assert worth.curves[UTILITY][0] == 0.5

    def test_intervals_come_from_whole_photographs(self) -> None:
        # one photograph always right, one always wrong: half of the resampled sets have only one
        correct = np.array([True, True, False, False])
        worth = weigh(trials(correct=correct))
        assert worth.accuracy == Interval(0.5, 0.0, 1.0)
        alone = weighed(trials(correct=correct, sources=np.zeros(4, int)))
        assert alone.accuracy == Interval(0.5, 0.5, 0.5)
        many = np.tile(correct, 100)
        wide = {
            name: np.tile(getattr(trials(), name), 100)
            for name in ("qualities", "file_qualities", "passed", "utilities", "gate_ms",
                         "pipeline_ms")
        }  # fmt: skip
        sources = np.repeat(np.arange(200), 2)
        interval = weigh(Trials(sources=sources, correct=many, **wide)).accuracy
        # binomial: 0.5 +- 1.96 * sqrt(0.25 / 200)
        assert interval.low == pytest.approx(0.431, abs=0.015)
        assert interval.high == pytest.approx(0.569, abs=0.015)

    def test_the_same_trials_give_the_same_intervals(self) -> None:
        assert weighed(trials()) == weighed(trials())

    def test_where_nothing_passes_or_nothing_is_right_there_is_no_number(self) -> None:
        none = weighed(trials(passed=np.zeros(4, bool)))
        assert math.isnan(none.accuracy_passed.value)
        assert none.passed.value == 0
        assert none.cost.saved.value == pytest.approx(0.75)
        assert math.isnan(none.cost.per_correct_with.value)
        wrong = weighed(trials(correct=np.zeros(4, bool)))
        assert math.isnan(wrong.correct_stopped.value)
        right = weighed(trials(correct=np.ones(4, bool)))
        assert math.isnan(right.errors_stopped.value)
        assert all(math.isnan(each.gain.value) for each in right.areas)
        setting = Setting("g", "p", "pass", 2, "d", (90, 10))
        for worth in (none, wrong, right):
            assert "nan" not in to_markdown(worth, setting).lower()
            json.loads(to_json(worth, setting), parse_constant=pytest.fail)

    @pytest.mark.parametrize("changes", [
        {"sources": np.array([0, 0, 1])},
        {"utilities": np.array([0.5, 0.5, math.nan, 0.5])},
        {name: np.array([], np.int64) for name in Trials.__dataclass_fields__},
    ])  # fmt: skip
    def test_impossible_trials_are_refused(self, changes: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match="expected"):
            trials(**changes)


class Voices:
    """A gate and a pipeline that go by an image's JPEG quality, and remember who was asked."""

    name = "voices"

    def __init__(self) -> None:
        self.calls: list[str] = []

    def judge(self, image: bytes) -> Verdict:
        self.calls.append("gate")
        table = decode(image).luma_quantization
        assert table is not None
        utility = 0.9 if table[0] < 20 else 0.5 if table[0] < 40 else 0.1
        thresholds = Thresholds(useful=0.8, review=0.3)
        return Verdict(
            task="general", utility=utility, decision=thresholds.decide(utility),
            thresholds=thresholds, reasons=(), predictor=VERDICT.predictor, image=VERDICT.image,
        )  # fmt: skip

    def decide(self, image: bytes) -> Decided:
        self.calls.append("pipeline")
        table = decode(image).luma_quantization
        assert table is not None
        return Decided("cat" if table[0] < 40 else "dog", 4.0)


@pytest.fixture
def photographs(tmp_path: Path) -> list[Photograph]:
    made = []
    for number in range(3):
        path = tmp_path / f"{number}.png"
        path.write_bytes(encode(draw(64, 48, seed=number), "PNG"))
        made.append(Photograph(path, "cat", f"group {number // 2}"))
    return made


class TestJob:
    def test_both_look_at_every_copy_in_turns(self, photographs: list[Photograph]) -> None:
        voices, seen = Voices(), []
        judged = run(photographs, voices.judge, voices, (90, 30, 5),
                     progress=lambda done, total: seen.append((done, total)))  # fmt: skip
        assert [(one.quality, one.file_quality) for one in judged[:3]] == [
            (90, 90),
            (30, 30),
            (5, 5),
        ]
        assert [one.utility for one in judged[:3]] == [0.9, 0.5, 0.1]
        assert [one.judgement for one in judged[:3]] == ["USEFUL", "REVIEW", "NON_USEFUL"]
        assert [one.passed for one in judged[:3]] == [True, True, False]
        assert [one.decided for one in judged[:3]] == ["cat", "cat", "dog"]
        assert seen == [(1, 3), (2, 3), (3, 3)]
        counted = voices.calls[-18:]
        assert counted == ["gate", "pipeline", "pipeline", "gate"] * 4 + ["gate", "pipeline"]
        assert voices.calls[:-18].count("gate") == voices.calls[:-18].count("pipeline") > 0
        assert all(one.gate_ms > 0 and one.pipeline_ms == 4.0 for one in judged)

    def test_review_may_stop(self, photographs: list[Photograph]) -> None:
        voices = Voices()
        judged = run(photographs[:1], voices.judge, voices, (90, 30, 5), review="stop")
        assert [one.passed for one in judged] == [True, False, False]

    def test_what_was_judged_becomes_trials_and_a_table(
        self, photographs: list[Photograph], tmp_path: Path
    ) -> None:
        voices = Voices()
        judged = run(photographs, voices.judge, voices, (90, 5))
        arrays = to_trials(judged, photographs)
        assert arrays.sources.tolist() == [0, 0, 0, 0, 1, 1]  # two of one original
        assert arrays.qualities.tolist() == [90, 5] * 3
        assert arrays.correct.tolist() == [True, False] * 3
        assert arrays.passed.tolist() == [True, False] * 3
        write_judged(tmp_path / "copies.csv", judged, tmp_path)
        with (tmp_path / "copies.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert [row["path"] for row in rows] == [
            "0.png",
            "0.png",
            "1.png",
            "1.png",
            "2.png",
            "2.png",
        ]
        assert rows[1]["decided"] == "dog"
        assert rows[1]["judgement"] == "NON_USEFUL"

    def test_a_gate_that_is_off_is_refused(self, photographs: list[Photograph]) -> None:
        off = Verdict("t", None, Decision.USEFUL, None, (), None, None, Mode.OFF, "the gate is off")
        with pytest.raises(ConfigError, match="a gate that judges, got mode OFF: the gate is off"):
            run(photographs, lambda _: off, Voices(), (90,))
        with pytest.raises(ConfigError, match="at least one photograph"):
            run([], Voices().judge, Voices(), (90,))

    def test_a_file_that_is_no_image_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "bad.jpg").write_bytes(b"junk")
        with pytest.raises(TableError, match=r"bad\.jpg: expected an image"):
            run([Photograph(tmp_path / "bad.jpg", "cat", "")], Voices().judge, Voices(), (90,))

    def test_labels_are_read_by_the_first_column_there_is(
        self, photographs: list[Photograph], tmp_path: Path
    ) -> None:
        table = tmp_path / "truth.csv"
        table.write_text("path,class_index,name\n0.png,7,cat\n1.png,8,dog\n\n")
        by_number = read_labels(table, tmp_path)
        assert [(one.path.name, one.label) for one in by_number] == [("0.png", "7"), ("1.png", "8")]
        assert len({one.group for one in by_number}) == 2
        assert [one.label for one in read_labels(table, tmp_path, ("label", "name"))] == [
            "cat",
            "dog",
        ]

    @pytest.mark.parametrize(("text", "message"), [
        ("path,x\n0.png,1\n", "columns path and label or class_index"),
        ("label\n1\n", "columns path and label"),
        ("path,label\n", "got 0 with path, label"),
        ("path,label\nnone.png,1\n", "there is no image"),
        ("path,label\n0.png,1\n0.png,2\n", "each image once"),
    ])  # fmt: skip
    def test_tables_that_cannot_be_used_are_named(
        self, photographs: list[Photograph], tmp_path: Path, text: str, message: str
    ) -> None:
        (tmp_path / "truth.csv").write_text(text)
        with pytest.raises(TableError, match=message):
            read_labels(tmp_path / "truth.csv", tmp_path)
        with pytest.raises(TableError, match="expected a CSV table"):
            read_labels(tmp_path / "absent.csv", tmp_path)

    def test_held_out_photographs_are_chosen_by_their_content(self, tmp_path: Path) -> None:
        many = []
        for number in range(40):
            path = tmp_path / f"{number}.png"
            path.write_bytes(encode(draw(8, 8, seed=number), "PNG"))
            many.append(Photograph(path, "cat", str(number)))
        held_out = choose(many)
        assert 0 < len(held_out) < 40
        assert {split_of(digest_bytes(one.path.read_bytes())) for one in held_out} == {"test"}
        assert len(choose(many, "train")) + len(held_out) == len(choose(many, "all")) == 40
        assert choose(many[::-1], "all", 5) == choose(many, "all")[:5]
        with pytest.raises(TableError, match="on the side test"):
            choose(choose(many, "train"))
        with pytest.raises(TableError, match="expected an image"):
            choose([Photograph(tmp_path / "none.png", "cat", "")], "all")

    def test_a_decision_takes_time(self) -> None:
        with pytest.raises(ValueError, match="positive milliseconds"):
            Decided("cat", 0.0)


SETTING = Setting("net 1", "resnet", "pass", 2, "truth.csv, side test", (90, 10))


def test_a_number_without_an_interval_keeps_its_digits() -> None:
    """Of one photograph every resample is the same."""
    assert _number(Interval(0.43, 0.43, 0.43)) == "0.43 (0.43 to 0.43)"
    assert _number(Interval(1.0, 1.0, 1.0)) == "1"


def test_the_page_has_every_number() -> None:
    page = to_markdown(weigh(trials(), draws=200), SETTING)
    assert page.startswith("# net 1 before resnet\n")
    assert "4 copies of 2 photographs (truth.csv, side test) at JPEG qualities 90, 10;" in page
    assert "| accuracy on all copies | 50.0% (50.0% to 50.0%) |" in page
    assert "| rise | 16.7 points (0.0 to 50.0) |" in page
    assert "| 10 | 2 | 0.0% (0.0% to 0.0%) | 50.0% (0.0% to 100.0%) |" in page
    assert "| discarded by | area | gain | errors left at 25% discarded |" in page
    assert "| random | 50.0% (50.0% to 50.0%) | 0 |" in page
    assert "| time of one thread, on a machine of 2 cores | |" in page
    assert "| break-even: share of stopped images that pays for the gate | 25.0% |" in page


def test_json_has_the_curves_and_no_rounding() -> None:
    table = json.loads(to_json(weighed(trials()), SETTING))
    assert table["setting"]["pipeline"] == "resnet"
    assert table["accuracy_passed"]["value"] == 2 / 3
    assert len(table["curves"]["utility"]) == len(table["discarded"]) == 201


def test_the_picture_is_a_png(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from utility_gate.value.figure import draw as draw_figure

    for name, each in (("one", trials()), ("none", trials(passed=np.zeros(4, bool)))):
        draw_figure(weighed(each), SETTING, tmp_path / f"{name}.png")
        picture = decode((tmp_path / f"{name}.png").read_bytes())
        assert picture.width > 1000
        assert len(np.unique(picture.pixels.reshape(-1, 3), axis=0)) > 20
