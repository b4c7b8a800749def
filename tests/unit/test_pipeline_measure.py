"""How good a classifier or a detector is, against numbers worked out by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipelines.boxed import BoxedImage
from pipelines.car_model import evaluate as car_evaluate
from pipelines.car_model.answer import NO_CAR, AnswerThresholds
from pipelines.car_model.levels import Told, choose_thresholds, score_answers
from pipelines.classifier import Classifier
from pipelines.damage import evaluate as damage_evaluate
from pipelines.detector import Detection, Detector
from pipelines.evaluate import (
    HeadResult,
    classify_all,
    evaluate,
    evaluate_multi_label,
    known_rows,
)
from pipelines.evaluate_boxes import ap_table, detect_all, evaluate_boxes, threshold_table
from pipelines.examples import Example
from pipelines.heads import Head
from pipelines.measure import (
    bootstrap,
    calibration_error,
    confusion,
    fit_temperature,
    in_top,
    precision_recall,
    score,
)
from pipelines.measure_boxes import Truth, average_precision, match, threshold_row
from pipelines.pictures import draw_confusion, draw_history
from pipelines.results import to_numbers, write_results
from pipelines.risk import threshold_for, upper_bound
from pipelines.tables import class_table, head_table, markdown, percent, with_interval
from pipelines.views import classify_views, make_views
from tests.checkpoints import (
    BLUE,
    GREEN,
    GREY,
    RED,
    plain,
    save_car_model,
    save_damage,
    save_detector,
    with_block,
)
from tests.labelled import picture, save, save_boxes, save_table
from utility_gate.errors import TableError
from utility_gate.statistics import Interval, softmax

TARGETS = np.array([0, 0, 0, 1, 1, 2])
PREDICTED = np.array([0, 0, 1, 1, 1, 1])
"""Of four classes: the third is never predicted, the fourth does not occur."""


# Classes


def test_a_confusion_matrix_has_the_true_classes_down() -> None:
    table = confusion(TARGETS, PREDICTED, 4)
    assert table.tolist() == [[2, 1, 0, 0], [0, 2, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]


def test_precision_recall_and_f2_are_those_worked_out_by_hand() -> None:
    precision, recall, f_beta = precision_recall(confusion(TARGETS, PREDICTED, 4))
    # Said to be the first: 2, both right. The second: 4, of which 2. F2 = 5 P R / (4 P + R).
    np.testing.assert_allclose(precision, [1, 1 / 2, 0, np.nan])
    np.testing.assert_allclose(recall, [2 / 3, 1, 0, np.nan])
    np.testing.assert_allclose(f_beta, [5 / 7, 5 / 6, 0, np.nan])


def test_a_class_that_does_not_occur_has_no_precision_even_if_it_was_said() -> None:
    table = confusion(np.array([0, 0]), np.array([0, 1]), 2)
    precision, recall, f_beta = precision_recall(table)
    assert (precision[0], recall[0], f_beta[0]) == (1, 0.5, pytest.approx(2.5 / 4.5))
    assert np.isnan([precision[1], recall[1], f_beta[1]]).all()


def test_the_true_class_is_among_the_k_likeliest() -> None:
    probabilities = np.array([[0.1, 0.2, 0.3, 0.4], [0.7, 0.1, 0.1, 0.1]])
    targets = np.array([1, 3])
    assert in_top(probabilities, targets, 1).tolist() == [False, False]
    assert in_top(probabilities, targets, 2).tolist() == [False, False]
    assert in_top(probabilities, targets, 3).tolist() == [True, False]  # ties: the earlier first
    assert in_top(probabilities, targets, 4).tolist() == [True, True]


def test_intervals_are_by_whole_originals() -> None:
    values = np.tile([1.0, 0.0], 200)
    alone = bootstrap(values, [str(n) for n in range(400)])
    together = bootstrap(values, [f"{n % 2}{n // 80}" for n in range(400)])  # ten of forty copies
    assert alone.value == together.value == 0.5
    assert alone.low == pytest.approx(0.5 - 1.96 * 0.5 / 20, abs=0.01)
    assert alone.high == pytest.approx(0.5 + 1.96 * 0.5 / 20, abs=0.01)
    assert together.high - together.low > 4 * (alone.high - alone.low)
    assert bootstrap(values, ["all"] * 400) == Interval(0.5, 0.5, 0.5)
    assert bootstrap(values, [str(n) for n in range(400)]) == alone  # no luck in it


def test_unequal_originals_weigh_by_their_copies() -> None:
    values = np.array([1.0] * 9 + [0.0])
    assert bootstrap(values, ["a"] * 9 + ["b"]).value == 0.9


def test_calibration_error_worked_out_by_hand() -> None:
    sure = np.array([0.9, 0.9, 0.6, 0.6])
    probabilities = np.stack([sure, 1 - sure], axis=1)
    targets = np.array([0, 1, 0, 0])
    # At 0.9 half are right, at 0.6 all: (2 |0.9 - 0.5| + 2 |0.6 - 1|) / 4.
    assert calibration_error(probabilities, targets) == pytest.approx(0.4)
    certain = np.array([[1.0, 0.0], [0.0, 1.0]])
    assert calibration_error(certain, np.array([0, 1])) == 0
    assert calibration_error(certain, np.array([1, 0])) == 1
    # Both in one bin of 15, [0.6, 0.667): their mean is what counts.
    near = np.array([[0.61, 0.39], [0.65, 0.35]])
    assert calibration_error(near, np.array([0, 1])) == pytest.approx(0.63 - 0.5)


def test_softmax_of_large_logits_is_finite() -> None:
    np.testing.assert_allclose(softmax(np.array([1000.0, 1000.0 + math.log(3)])), [0.25, 0.75])
    np.testing.assert_allclose(softmax(np.array([[0.0, 2 * math.log(3)]]), 2.0), [[0.25, 0.75]])


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 3.5])
def test_a_known_temperature_is_recovered(temperature: float) -> None:
    random = np.random.default_rng(1)
    honest = random.normal(0, 2, (4000, 5))
    uniform = random.random((4000, 1))
    targets = (softmax(honest).cumsum(1) < uniform).sum(1)
    assert fit_temperature(honest * temperature, targets) == pytest.approx(temperature, rel=0.05)


def test_temperatures_stay_in_their_bounds() -> None:
    logits = np.eye(3) * 4
    assert fit_temperature(logits, np.arange(3)) == pytest.approx(0.2, rel=0.01)
    assert fit_temperature(logits, (np.arange(3) + 1) % 3) == pytest.approx(5, rel=0.01)


def test_scores_of_a_head_put_together() -> None:
    probabilities = np.eye(4)[PREDICTED] * 0.7 + 0.075
    scores, table = score(probabilities, TARGETS, list("abcdef"), commonest=1)
    assert table.tolist() == confusion(TARGETS, PREDICTED, 4).tolist()
    assert (scores.images, scores.accuracy.value) == (6, pytest.approx(4 / 6))
    assert scores.top3.value == pytest.approx(6 / 6)
    assert scores.precision == pytest.approx((1 + 0.5 + 0) / 3)  # of the classes that occur
    assert scores.recall == scores.balanced_accuracy == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert scores.f_beta == pytest.approx((5 / 7 + 5 / 6) / 3)
    assert scores.majority == pytest.approx(2 / 6)
    assert scores.ece == pytest.approx(0.775 - 4 / 6)


# Risk


def test_wilsons_bound_worked_out_by_hand() -> None:
    # None of n wrong: z^2 / (n + z^2) with z = 1.6449, so 2.7057 / 12.7057.
    assert upper_bound(0, 10) == pytest.approx(0.21295, abs=1e-5)
    # One of four: (0.25 + z^2 / 8 + z sqrt(0.1875 / 4 + z^2 / 64)) / (1 + z^2 / 4).
    assert upper_bound(1, 4) == pytest.approx(0.643841, abs=1e-5)
    assert upper_bound(5, 5) == 1
    assert upper_bound(0, 0) == 1


def test_answers_are_given_from_where_enough_of_them_are_right() -> None:
    probabilities = np.linspace(0.99, 0.5, 50)
    right = np.ones(50, bool)
    # 25 right answers allow to say that at most 10 % are wrong, 24 do not.
    assert threshold_for(probabilities[:24], right[:24], 0.1) == 1
    assert threshold_for(probabilities[:25], right[:25], 0.1) == probabilities[24]
    assert threshold_for(probabilities, right, 0.1) == 0.5
    right[30:34] = False  # four of 34 are too many: nothing below is told
    assert probabilities[24] > threshold_for(probabilities, right, 0.1) > probabilities[31]
    assert threshold_for(probabilities, ~np.ones(50, bool), 0.1) == 1
    # Nor is anything told below a bad stretch, though a good one may follow and make up for it.
    many = np.linspace(0.99, 0.5, 236)
    assert threshold_for(many, ~np.isin(np.arange(236), range(30, 36)), 0.1) > many[36]
    assert threshold_for(np.zeros(0), np.zeros(0, bool), 0.1) == 1


def test_equally_probable_answers_are_told_together() -> None:
    probabilities = np.array([0.9] * 30 + [0.8] * 40)
    right = np.array([True] * 30 + [True] * 20 + [False] * 20)
    assert threshold_for(probabilities, right, 0.1) == 0.9  # not within the 0.8s
    assert threshold_for(probabilities[::-1], right[::-1], 0.1) == 0.9


@given(
    st.lists(st.tuples(st.integers(0, 19), st.integers(0, 9)), max_size=150),
    st.sampled_from([0.05, 0.1, 0.3, 0.6]),
)
@settings(max_examples=150, deadline=None)
def test_the_promise_holds_at_the_chosen_threshold(rows: Any, most: float) -> None:
    probabilities = np.array([p / 20 for p, _ in rows])
    right = np.array([luck > 0 for _, luck in rows], bool)
    chosen = threshold_for(probabilities, right, most)

    def holds(threshold: float) -> bool:
        told = probabilities >= threshold
        return upper_bound(int((~right[told]).sum()), int(told.sum())) <= most

    values = sorted(set(probabilities.tolist()), reverse=True)
    held = [holds(value) for value in values]
    if not any(held):
        assert chosen == 1
        return
    assert holds(chosen)
    first = held.index(True)
    run = next((i for i in range(first, len(held)) if not held[i]), len(held))
    assert chosen == values[run - 1]  # the lowest before it first fails


# Makes and models


AUDI, A5, BMW = "Audi TT 2012", "Audi A5 2012", "BMW M3 2012"


def row(tt: float, a5: float, m3: float) -> dict[str, float]:
    return {AUDI: tt, A5: a5, BMW: m3, NO_CAR: round(1 - tt - a5 - m3, 6)}


def test_what_is_told_of_cars_is_counted_by_level() -> None:
    rows = [
        row(0.8, 0.1, 0.1),  # the model, right
        row(0.8, 0.1, 0.1),  # the model, wrong: an A5
        row(0.45, 0.40, 0.1),  # the make, right
        row(0.45, 0.40, 0.1),  # the make, wrong: a BMW
        row(0.3, 0.2, 0.4),  # a car
        row(0.1, 0.1, 0.1),  # said to be none
        row(0.1, 0.1, 0.1),  # is none
        row(0.8, 0.1, 0.1),  # is none, and was told as a car
    ]
    truths = [AUDI, A5, A5, BMW, BMW, BMW, NO_CAR, NO_CAR]
    scores = score_answers(rows, truths, list("abcdefgh"), AnswerThresholds(0.6, 0.7))
    assert (scores.cars, scores.others) == (6, 2)
    assert scores.top1.value == pytest.approx(2 / 6)  # the first and the fifth
    assert scores.top3.value == 1  # of three cars
    assert scores.make.value == pytest.approx(3 / 6)
    assert scores.told == {"MODEL": Told(2 / 6, 0.5), "MAKE": Told(2 / 6, 0.5)}
    assert (scores.cars_refused, scores.no_car_found) == (1 / 6, 0.5)


def test_nobody_without_a_car_is_no_number_and_nothing_told_is_none() -> None:
    scores = score_answers([row(0.3, 0.2, 0.4)], [BMW], ["a"], AnswerThresholds(1, 1))
    assert scores.told["MODEL"].share == scores.told["MAKE"].share == 0
    assert math.isnan(scores.told["MODEL"].right)
    assert math.isnan(scores.no_car_found)


def test_thresholds_keep_what_they_promise_on_held_out_photographs() -> None:
    random = np.random.default_rng(3)
    rows, truths = [], []
    for _ in range(600):
        p = random.dirichlet([0.4] * 4)
        rows.append(dict(zip((AUDI, A5, BMW, NO_CAR), map(float, p), strict=True)))
        truths.append((AUDI, A5, BMW, NO_CAR)[random.choice(4, p=p)])
    chosen = choose_thresholds(rows, truths, 0.2, 0.1)
    assert 0.5 < chosen.model_from < 1
    assert 0.5 < chosen.make_from < 1
    for threshold, most, right in (
        (chosen.model_from, 0.2, lambda r, t: max((AUDI, A5, BMW), key=r.__getitem__) == t),
        (
            chosen.make_from,
            0.1,
            lambda r, t: t in ((AUDI, A5) if r[AUDI] + r[A5] > r[BMW] else (BMW,)),
        ),
    ):
        probable = [
            max(r[AUDI], r[A5], r[BMW]) if most == 0.2 else max(r[AUDI] + r[A5], r[BMW])
            for r in rows
        ]
        told = [i for i, p in enumerate(probable) if p >= threshold - 1e-6]
        wrong = sum(not right(rows[i], truths[i]) for i in told)
        assert upper_bound(wrong, len(told)) <= most
        assert len(told) > 40


def test_nothing_is_told_of_photographs_that_teach_nothing() -> None:
    assert choose_thresholds([row(0.8, 0.1, 0.1)], [BMW], 0.1, 0.1) == AnswerThresholds(1, 1)


def test_the_table_of_answers_names_every_level() -> None:
    scores = score_answers(
        [row(0.8, 0.1, 0.1), row(0.1, 0.1, 0.1)], [AUDI, NO_CAR], ["a", "b"],
        AnswerThresholds(0.6, 0.7),
    )  # fmt: skip
    table = car_evaluate.answer_table(scores)
    assert "| 1 cars, 1 others | percent |" in table
    assert "| MODEL told | 100.0, of which right 100.0 |" in table
    assert "| photographs without a car, found | 100.0 |" in table


# Boxes


def found(*rows: tuple[tuple[float, float, float, float], float, str]) -> list[Detection]:
    return [Detection(*row) for row in rows]


SQUARE, FAR = (0.0, 0.0, 10.0, 10.0), (50.0, 50.0, 60.0, 60.0)
TRUTH = Truth((SQUARE, FAR), ("dent", "scratch"))


def test_each_object_is_found_once_by_the_surest() -> None:
    said = found(
        ((0, 0, 10, 8), 0.9, "dent"),  # IoU 0.8
        (SQUARE, 0.8, "dent"),  # better, but taken
        ((50, 50, 60, 54), 0.7, "scratch"),  # IoU 0.4: too little
        (FAR, 0.6, "dent"),  # of another class
    )
    assert match(said, TRUTH) == pytest.approx([0.8, 0, 0, 0])
    assert match(said, TRUTH, any_class=True) == pytest.approx([0.8, 0, 0, 1])
    assert match(found(((0, 0, 10, 5), 0.9, "dent")), TRUTH) == [0.5]  # half is enough


def test_a_box_takes_the_object_that_it_overlaps_most() -> None:
    near = Truth(((0, 0, 10, 10), (0, 2, 10, 12)), ("dent", "dent"))
    said = found(((0, 2, 10, 12), 0.9, "dent"), ((0, 0, 10, 10), 0.8, "dent"))
    assert match(said, near) == [1, 1]


def test_nothing_is_found_where_nothing_is() -> None:
    assert match(found((SQUARE, 0.9, "dent")), Truth((), ())) == [0]
    assert match([], TRUTH) == []


def test_a_row_of_seed_000s_table_worked_out_by_hand() -> None:
    images = [
        found((SQUARE, 0.9, "dent"), ((0, 0, 10, 6), 0.5, "dent"), (FAR, 0.3, "scratch")),
        found(((0, 0, 10, 6), 0.4, "dent")),
    ]
    truths = [TRUTH, Truth((SQUARE,), ("dent",))]
    at_04 = threshold_row(images, truths, 0.4)
    # Three boxes, of which one is a second one of the same dent; two of three objects.
    assert (at_04.threshold, at_04.precision, at_04.recall) == (0.4, 2 / 3, 2 / 3)
    assert at_04.f1 == pytest.approx(2 / 3)
    assert at_04.mean_iou == pytest.approx((1 + 0 + 0.6) / 3)
    at_0 = threshold_row(images, truths, 0)
    assert (at_0.precision, at_0.recall) == (3 / 4, 1)
    assert at_0.f1 == pytest.approx(2 * 0.75 / 1.75)
    nothing = threshold_row(images, truths, 0.95)
    assert (nothing.precision, nothing.recall, nothing.f1, nothing.mean_iou) == (0, 0, 0, 0)
    assert threshold_row([[]], [Truth((), ())], 0).recall == 0


def test_average_precision_worked_out_by_hand() -> None:
    images = [found((SQUARE, 0.9, "dent")), found((FAR, 0.8, "dent"), (SQUARE, 0.7, "dent"))]
    truths = [Truth((SQUARE,), ("dent",)), Truth((SQUARE,), ("dent",))]
    ap = average_precision(images, truths, ("dent", "scratch"))
    # Precision 1 up to recall 0.5, then 2/3: (51 + 50 * 2/3) / 101.
    by_hand = (51 + 50 * 2 / 3) / 101
    assert ap == {key: pytest.approx(by_hand, abs=1e-6) for key in ("dent", "mAP50", "mAP")}


def test_a_loose_box_counts_at_half_and_not_above() -> None:
    ap = average_precision(
        [found(((0, 0, 10, 6.2), 0.9, "dent"))], [Truth((SQUARE,), ("dent",))], ("dent",)
    )
    assert ap["mAP50"] == pytest.approx(1)
    assert ap["mAP"] == pytest.approx(0.3)  # at 0.5, 0.55 and 0.6 of ten


def test_classes_that_do_not_occur_have_no_average_precision() -> None:
    images = [found((SQUARE, 0.9, "dent"), (FAR, 0.8, "scratch"))]
    ap = average_precision(images, [Truth((SQUARE,), ("dent",))], ("scratch", "dent"))
    assert ap == {"dent": pytest.approx(1), "mAP50": pytest.approx(1), "mAP": pytest.approx(1)}
    alike = average_precision(
        images, [Truth((SQUARE, FAR), ("dent", "dent"))], ("scratch", "dent"), any_class=True
    )
    assert alike["damage"] == alike["mAP50"] == pytest.approx(1)


def test_a_detector_is_measured_as_it_serves_at_every_size(tmp_path: Path) -> None:
    detector = Detector.load(save_detector(tmp_path / "model"))
    block = (64.0, 64.0, 128.0, 128.0)
    originals = []
    for number, (colour, labels) in enumerate(
        ((RED, ("scratch",)), (GREEN, ("dent",)), (GREY, ()))
    ):
        path = save(tmp_path / f"{number}.png", with_block(colour))
        image = BoxedImage(path, (block,) * len(labels), labels, str(number), "test")
        missing = BoxedImage(tmp_path / "copy.png", (), (), str(number), "test")
        originals.append([image, missing])  # the first copy alone is looked at
    metrics, text = evaluate_boxes(detector, originals, (128, 256))
    assert set(metrics) == {"128", "256"}
    assert metrics["128"]["scratch"] == pytest.approx(1)
    assert metrics["128"]["any_class"]["mAP50"] == pytest.approx(
        metrics["128"]["any_class"]["damage"]
    )
    assert "| input | mAP50 | mAP | AP50 scratch |" in text.replace(" AP50 dent |", "")
    assert "Input 256, any class:" in text
    assert text.count("| 0.25 |") == 2
    json.dumps(metrics)
    (unsure,) = detect_all(detector, [originals[2][0]], 128)
    assert unsure
    assert all(d.score < 0.2 < detector.card.score for d in unsure)  # however unsure


def test_tables_of_boxes_are_in_percent() -> None:
    ap = {"dent": 0.5, "mAP50": 0.25, "mAP": 0.125}
    table = ap_table({640: ap, 416: ap}, {640: {"mAP50": 1.0}, 416: {"mAP50": 0.0}})
    assert table.splitlines()[0] == "| input | mAP50 | mAP | AP50 dent | AP50 any class |"
    assert table.splitlines()[2:] == [
        "| 640 | 25.0 | 12.5 | 50.0 | 100.0 |",
        "| 416 | 25.0 | 12.5 | 50.0 | 0.0 |",
    ]
    lines = threshold_table([found((SQUARE, 0.45, "dent"))], [TRUTH]).splitlines()
    assert lines[0] == "| score from | precision | recall | F1 | mean IoU |"
    assert lines[2] == "| 0.00 | 100.0 | 50.0 | 66.7 | 100.0 |"
    assert lines[-1] == "| 0.70 | 0.0 | 0.0 | 0.0 | 0.0 |"


# A classifier on pictures


@pytest.fixture
def classifier(tmp_path: Path) -> Classifier:
    """Red is a scratch, green a dent, blue no car, grey nothing."""
    return Classifier.load(save_damage(tmp_path / "model") / "classifier")


KINDS = {"door_scratch": RED, "door_dent": GREEN, "none": GREY, "no_car": BLUE}


def photographs(folder: Path, *rows: tuple[str, str, dict[str, tuple[str, ...]]]) -> list[Example]:
    """Flat pictures that look like a type, with labels that may say something else."""
    return [
        Example(
            save(folder / f"{n}-{name}.png", plain(KINDS[looks], 60, 40)), labels, name
        )
        for n, (looks, name, labels) in enumerate(rows)
    ]  # fmt: skip


def test_heads_are_measured_on_what_has_a_label(tmp_path: Path, classifier: Classifier) -> None:
    dent, scratch = {"type": ("door_dent",)}, {"type": ("door_scratch",)}
    test = photographs(
        tmp_path,
        ("door_dent", "a", dent | {"severity": ("minor",)}),
        ("door_scratch", "b", scratch | {"severity": ("severe",)}),
        ("door_scratch", "c", dent),
        ("none", "d", {"location": ("front",)}),
    )
    more = [("door_scratch", name, scratch) for name in "ef"]
    train = [*test, *photographs(tmp_path, *more)]
    assert [part.tolist() for part in known_rows(test, classifier.card.heads[0].head)] == [
        [0, 1, 2],
        [1, 0, 1],
    ]
    kind, severity = evaluate(classifier, train, test, views=True).heads
    assert (kind.head.name, kind.scores.images) == ("type", 3)
    assert kind.scores.accuracy.value == kind.with_views == pytest.approx(2 / 3)
    assert kind.scores.majority == pytest.approx(1 / 3)  # scratches, as the training side has it
    assert kind.confusion[1].tolist() == [1, 1, 0, 0]
    assert (severity.head.name, severity.scores.images) == ("severity", 2)
    assert evaluate(classifier, train, test, views=False).heads[0].with_views is None
    with pytest.raises(TableError, match=r"head severity: .* on the test side"):
        evaluate(classifier, train, [test[2]], views=False)
    with pytest.raises(TableError, match=r"head type: .* on the test side"):
        evaluate(classifier, train, [], views=False)
    strange = photographs(tmp_path, ("none", "x", {"type": ("hail",)}))
    with pytest.raises(TableError, match=r"x.png: head type: expected one of door_scratch"):
        evaluate(classifier, train, [*test, *strange], views=False)


def test_several_labels_are_measured_class_by_class(tmp_path: Path, classifier: Classifier) -> None:
    examples = photographs(
        tmp_path,
        ("door_scratch", "a", {"location": ("rear",)}),
        ("door_dent", "b", {"location": ("front",)}),
        ("none", "c", {"type": ("none",)}),
    )
    probabilities = classify_all(classifier, examples)
    said = probabilities["location"]
    assert said.shape == (3, 2)
    # Never the front; the rear where it is red, and (even odds) where it is grey.
    assert (said >= 0.5).tolist() == [[False, True], [False, False], [False, True]]
    heads = [card.head for card in classifier.card.heads]
    (measured,) = evaluate_multi_label(heads, probabilities, examples).items()
    assert measured[0] == "location"
    assert measured[1].value == pytest.approx(3 / 4)
    assert measured[1].low <= measured[1].value <= measured[1].high


def test_views_show_the_picture_its_mirror_image_and_its_corners(classifier: Classifier) -> None:
    pixels = picture(5, side=64)[:40]
    views = make_views(pixels)
    assert [view.shape for view in views] == [(40, 64, 3)] * 2 + [(35, 56, 3)] * 4
    np.testing.assert_array_equal(views[1], pixels[:, ::-1])
    np.testing.assert_array_equal(views[2], pixels[:35, :56])
    np.testing.assert_array_equal(views[3][:, ::-1], pixels[:35, 8:])
    np.testing.assert_array_equal(views[4][:, ::-1], pixels[5:, :56])
    np.testing.assert_array_equal(views[5], pixels[5:, 8:])
    assert all(view.shape == (1, 1, 3) for view in make_views(pixels[:1, :1]))
    seen = classifier.classify(views)
    averaged = classify_views(classifier, pixels)
    for head in ("type", "severity", "location"):
        expected = sum(answers[head].probabilities for answers in seen) / 6
        np.testing.assert_allclose(averaged[head], expected)


# Tables and pictures


def result(classes: int = 4, views: float | None = 0.5) -> HeadResult:
    probabilities = np.eye(classes)[PREDICTED]
    scores, table = score(probabilities, TARGETS, list("abcdef"), commonest=0)
    head = Head("type", tuple(f"class {n}" for n in range(classes)))
    return HeadResult(head, scores, views, table)


def test_tables_are_markdown_in_percent() -> None:
    assert markdown(("a", "b"), [("1", "2")]) == "| a | b |\n| --- | --- |\n| 1 | 2 |\n"
    assert percent(0.9134) == "91.3"
    assert with_interval(Interval(0.5, 0.25, 0.75)) == "50.0 (25.0 to 75.0)"
    header, _, line, missing = head_table([result(), result(views=None)]).splitlines()
    assert header.count("|") == line.count("|") == missing.count("|") == 12
    assert line.startswith("| type | 4 | 6 | 66.7 (")
    assert "| 50.0 |" in line
    assert "|  |" in missing
    rows = class_table(result()).splitlines()
    assert rows[2:] == [
        "| class 0 | 3 | 100.0 | 66.7 | 71.4 |",
        "| class 1 | 2 | 50.0 | 100.0 | 83.3 |",
        "| class 2 | 1 | 0.0 | 0.0 | 0.0 |",
    ]  # the class that does not occur is left out


@pytest.mark.parametrize("classes", [4, 31])
def test_results_are_written_for_people_and_for_programs(tmp_path: Path, classes: int) -> None:
    one = result(classes)
    write_results([one], tmp_path / "new", "further\n")
    text = (tmp_path / "new" / "results.md").read_text()
    assert text.endswith("further\n")
    assert ("| class 1 | 2 |" in text) is (classes <= 30)
    numbers = json.loads((tmp_path / "new" / "results.json").read_text())
    assert numbers == {"type": json.loads(json.dumps(to_numbers(one)))}
    assert numbers["type"]["accuracy_with_views"] == 0.5
    with Image.open(tmp_path / "new" / "confusion-type.png") as image:
        image.load()
        assert image.format == "PNG"


def test_the_confusion_matrix_is_drawn_by_shares(tmp_path: Path) -> None:
    two = result()
    shares = np.array([[90, 10, 0, 0], [5, 5, 0, 0], [0, 0, 0, 0], [0, 0, 0, 3]])
    draw_confusion(HeadResult(two.head, two.scores, None, shares), tmp_path / "c.png")
    pixels = np.asarray(Image.open(tmp_path / "c.png").convert("RGB"), int)
    # The darkest blue of "Blues" (a class that is always right) and white (never) are there.
    assert (np.abs(pixels - (8, 48, 107)).sum(-1) < 6).any()
    assert (np.abs(pixels - (247, 251, 255)).sum(-1) < 3).any()


def test_learning_curves_have_gaps_where_nothing_was_measured(tmp_path: Path) -> None:
    rows = [
        {"stage": "heads", "epoch": 0, "train_loss": 1.0, "val_loss": 1.1, "val_accuracy_a": ""},
        {"stage": "all", "epoch": 0, "train_loss": 0.5, "val_loss": 0.7, "val_accuracy_a": 0.5},
    ]
    draw_history(save_table(tmp_path / "history.csv", rows), tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as image:
        assert image.size == (1080, 420)


# The pipelines' own


def test_the_damage_pipeline_is_measured_from_a_configuration(tmp_path: Path) -> None:
    """Both networks, with their tables."""
    model = save_damage(tmp_path / "model")
    rows = []
    for number in range(60):
        kind = ("door_scratch", "door_dent")[number % 2]
        pixels = plain(KINDS[kind], 40 + number, 40)
        save(tmp_path / f"{number}.png", pixels)
        severity = ("minor", "severe")[number % 2 == 0]
        rows.append({"path": f"{number}.png", "kind": kind, "grade": severity})
    save_table(tmp_path / "labels.csv", rows)
    save_boxes(tmp_path, ("dent", "scratch"), 12)
    config = tmp_path / "damage.toml"
    config.write_text("""
[[sets]]
table = "labels.csv"
heads = { type = "kind", severity = "grade" }
group = "(.*)"
[detector]
classes = ["dent", "scratch"]
rename = { dent = "dent", scratch = "scratch" }
sides = [128, 64]
[[boxes]]
table = "boxes.json"
folder = "images"
group = '^(.*)\\.rf\\.'
""")
    text = damage_evaluate.evaluate(config, tmp_path, str(model), tmp_path / "out")
    lines = text.splitlines()
    assert lines[2].startswith("| type | 4 | 8 | 100.0 (")
    assert "Input 64, any class:" in text
    assert (tmp_path / "out" / "classifier" / "confusion-severity.png").is_file()
    assert (tmp_path / "out" / "detector" / "results.md").read_text() in text


def test_the_car_model_pipeline_is_measured_from_a_configuration(tmp_path: Path) -> None:
    model = save_car_model(tmp_path / "model")
    for name, colour in (("Audi TT Coupe 2012", (255, 90, 0)), ("BMW M3 Coupe 2012", GREEN),
                         ("no car", BLUE)):  # fmt: skip
        for number in range(20):
            path = tmp_path / "tree" / name / f"{name} {number}.png"
            save(path, plain(colour, 40 + number, 40))
    config = tmp_path / "car.toml"
    config.write_text('[[sets]]\nfolder = "tree"\nlevels = ["model"]\ngroup = "(.*)"\n')
    text = car_evaluate.evaluate(config, tmp_path, str(model), tmp_path / "out")
    assert "| 6 cars, 3 others | percent |" in text
    assert text == text.strip("\n") + "\n"
    assert (tmp_path / "out" / "answers.md").read_text() == text.split("\n\n")[-1]
    for number in range(9):
        save(tmp_path / "tree" / "Saab 900" / f"saab {number}.png", picture(number))
    with pytest.raises(TableError, match="expected one of Audi TT Coupe 2012"):
        car_evaluate.evaluate(config, tmp_path, str(model), tmp_path / "out")
