"""The arithmetic of `utility_gate.evaluation`: by hand, and against other ways to compute it."""

from __future__ import annotations

import io
from contextlib import redirect_stdout

import numpy as np
import pytest

from utility_gate.evaluation.gates import top_share
from utility_gate.evaluation.labelled import _ratio_interval
from utility_gate.evaluation.precision import (
    IOUS,
    Boxes,
    average_precision,
    iou,
    match,
    match_one,
)
from utility_gate.evaluation.resample import difference, divide, resample, share
from utility_gate.evaluation.scores import (
    Ranking,
    auroc,
    balanced_accuracy,
    balanced_ece,
    best_threshold,
    class_weights,
    ece,
    reliability,
    roc,
)
from utility_gate.evaluation.tables import number as to_text


def test_balanced_accuracy_and_threshold_by_hand() -> None:
    labels = np.array([1, 1, 1, 1, 0, 0])
    scores = np.array([0.9, 0.8, 0.7, 0.2, 0.3, 0.1])
    assert balanced_accuracy(scores >= 0.5, labels) == pytest.approx((0.75 + 1.0) / 2)
    assert 0.3 < best_threshold(scores, labels) <= 0.7


def test_the_best_threshold_of_many_scores_is_found_among_their_quantiles() -> None:
    random = np.random.default_rng(3)
    labels = random.integers(0, 2, 5000)
    scores = random.normal(labels * 2.0, 1.0)
    found = balanced_accuracy(scores >= best_threshold(scores, labels), labels)
    every = max(balanced_accuracy(scores >= at, labels) for at in np.unique(scores)[::5])
    assert found == pytest.approx(every, abs=0.002)


def test_a_ratio_of_errors_is_unbounded_where_the_other_makes_none() -> None:
    errors, others = np.array([0.1] * 60 + [0.0] * 40), np.array([0.1] * 50 + [0.0] * 50)
    found = _ratio_interval(1.0, errors, others)  # 1 fifty times, then infinite ten times
    assert (found.low, found.high) == (1.0, np.inf)
    assert to_text(found, 2) == "1.00 (1.00 to inf)"
    finite = _ratio_interval(1.0, errors[:50], others[:50])
    assert (finite.low, finite.high) == (1.0, 1.0)


def test_calibration_error_by_hand() -> None:
    # Useful: 0.9, 0.9 (half the weight); non-useful: 0.3, 0.05, 0.05, 0.05, a quarter of 1/2 each.
    utilities = np.array([0.9, 0.9, 0.3, 0.05, 0.05, 0.05])
    labels = np.array([1, 1, 0, 0, 0, 0])
    expected = 0.5 * 0.1 + 0.125 * 0.3 + 0.375 * 0.05
    assert balanced_ece(utilities, labels) == pytest.approx(expected)
    assert balanced_ece(np.array([1.0, 0.0]), np.array([1, 0])) == 0


def test_calibration_error_is_torchmetrics() -> None:
    torch = pytest.importorskip("torch")
    from torchmetrics.functional.classification import binary_calibration_error

    random = np.random.default_rng(1)
    utilities = random.random(500)
    labels = (random.random(500) < utilities**2).astype(np.int64)
    theirs = binary_calibration_error(
        torch.from_numpy(utilities), torch.from_numpy(labels), n_bins=10
    )
    assert ece(utilities, labels) == pytest.approx(float(theirs), abs=1e-6)
    weights = class_weights(labels)
    assert weights[labels == 1].sum() == pytest.approx(0.5)
    bins = reliability(utilities, labels, weights)
    again = sum(each.share * abs(each.utility - each.useful) for each in bins if each.share)
    assert balanced_ece(utilities, labels) == pytest.approx(again)


def test_the_area_under_roc_counts_pairs_and_halves_ties() -> None:
    random = np.random.default_rng(2)
    labels = random.integers(0, 2, 200)
    scores = np.round(random.normal(labels, 1.5), 1)  # many ties
    useful, others = scores[labels == 1], scores[labels == 0]
    pairs = np.sign(useful[:, None] - others[None])
    assert auroc(scores, labels) == pytest.approx((pairs.mean() + 1) / 2)
    false, true = roc(scores, labels)
    assert np.trapezoid(true, false) == pytest.approx((pairs.mean() + 1) / 2)
    assert (false[0], true[0], false[-1], true[-1]) == (0, 0, 1, 1)
    times = random.integers(0, 4, 200)
    weighed = Ranking(scores, labels).auroc(times[None].astype(float))[0]
    assert weighed == pytest.approx(auroc(np.repeat(scores, times), np.repeat(labels, times)))
    assert np.isnan(auroc(scores, np.ones(200, int)))


def test_sources_are_drawn_with_all_their_copies() -> None:
    sources = ["b", "a", "b", "c"]
    sets = resample(sources, draws=50)
    assert sets.weights.sum(axis=1).tolist() == [3.0] * 50
    for times, rows in zip(sets.weights, np.concatenate(list(sets.rows())), strict=True):
        assert rows.tolist() == [times[1], times[0], times[1], times[2]]
    labels = np.array([1, 0, 1, 1])
    both = resample(sources, labels, draws=50)
    assert (both.weights[:, 0] > 0).all()  # only "a" has a non-useful copy
    assert (both.weights[:, 1:].sum(axis=1) > 0).all()


def test_resampled_numbers_are_those_of_the_rows_drawn() -> None:
    """The same draws, done the long way: rows of every drawn source one after the other."""
    random = np.random.default_rng(5)
    sources = np.sort(random.integers(0, 12, 60)).astype(str)
    labels = random.integers(0, 2, 60)
    scores = random.random(60)
    sets = resample(sources.tolist(), labels, draws=20)
    generator = np.random.default_rng(0)
    names, owner = np.unique(sources, return_inverse=True)
    expected_accuracy, expected_auroc = [], []
    while len(expected_auroc) < 20:
        drawn = generator.integers(len(names), size=len(names))
        rows = np.concatenate([np.flatnonzero(owner == number) for number in drawn])
        if 0 < labels[rows].sum() < len(rows):
            expected_accuracy.append(balanced_accuracy(scores[rows] >= 0.5, labels[rows]))
            expected_auroc.append(auroc(scores[rows], labels[rows]))
    useful = scores >= 0.5
    recalls = [
        divide(sets.sums(right & side), sets.sums(side))
        for right, side in ((useful, labels == 1), (~useful, labels == 0))
    ]
    assert ((recalls[0] + recalls[1]) / 2).tolist() == pytest.approx(expected_accuracy)
    areas = np.concatenate([Ranking(scores, labels).auroc(rows) for rows in sets.rows()])
    assert areas.tolist() == pytest.approx(expected_auroc)


def test_differences_are_paired() -> None:
    sources = [str(number) for number in range(40)]
    right = np.random.default_rng(0).random(40) < 0.5
    everything = np.ones(40, bool)
    sets = resample(sources)
    one = share(sets, right, everything)
    better = right.copy()
    better[np.flatnonzero(~right)[0]] = True
    gap = difference(share(sets, better, everything), one)
    assert gap.value == pytest.approx(1 / 40)
    assert gap.low >= 0  # never worse in any set; unpaired it would be
    assert np.isnan(share(sets, right, np.zeros(40, bool))[0])


def test_gates_pass_their_highest_scores_and_shuffle_equal_ones() -> None:
    scores = np.array([3.0, 1.0, 2.0, 2.0, 2.0, 0.0])
    passes = top_share(scores, 3)
    assert passes[0]
    assert passes.sum() == 3
    assert not passes[[1, 5]].any()
    assert np.array_equal(passes, top_share(scores, 3))
    ties = [tuple(np.flatnonzero(top_share(scores, 2, seed=seed))) for seed in range(30)]
    assert set(ties) == {(0, 2), (0, 3), (0, 4)}
    assert not top_share(scores, 0).any()
    assert top_share(scores, 6).all()


def test_overlaps_and_matching_by_hand() -> None:
    one = np.array([[0.0, 0, 10, 10], [0, 0, 10, 5], [20, 20, 30, 30]])
    other = np.array([[0.0, 0, 10, 10], [5, 5, 15, 15]])
    assert iou(one, other) == pytest.approx(np.array([[1, 25 / 175], [0.5, 0], [0, 0]]))
    hits = match_one(np.array([[0.8, 0.7], [0.75, 0.6], [0.9, 0.1]]))
    # Up to IoU 0.6 the second takes the other object; above 0.8 the third finds the first free.
    assert hits[:, 0].tolist() == [True, True, False]
    assert hits[:, 4].tolist() == [True, False, False]  # 0.7
    assert hits[:, 7].tolist() == [False, False, True]  # 0.85
    assert match_one(np.empty((2, 0))).shape == (2, 10)


def drawn_detections(random: np.random.Generator, count: int) -> list[tuple[Boxes, Boxes]]:
    images = []
    for _ in range(count):
        objects = int(random.integers(0, 6))
        corner = random.uniform(0, 60, (objects, 2))
        true = np.hstack([corner, corner + random.uniform(8, 40, (objects, 2))])
        kinds = random.integers(1, 5, objects)
        near = np.repeat(true, 2, axis=0) + random.normal(0, 3, (2 * objects, 4))
        far = random.uniform(0, 50, (3, 2))
        boxes = np.vstack([near, np.hstack([far, far + 20])])
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
        classes = np.concatenate([np.repeat(kinds, 2), random.integers(1, 7, 3)])
        scores = np.round(random.random(len(boxes)), 2)  # ties between images and within
        order = np.argsort(-scores, kind="stable")
        found = Boxes(boxes[order], classes[order].astype(np.int64), scores[order])
        images.append((found, Boxes(true, kinds.astype(np.int64), np.empty(0))))
    return images


def coco_precision(images: list[tuple[Boxes, Boxes]]) -> np.ndarray:
    """AP at each IoU by faster-coco-eval."""
    from faster_coco_eval import COCO, COCOeval_faster

    def coco_box(box: np.ndarray) -> list[float]:
        return [box[0], box[1], box[2] - box[0], box[3] - box[1]]

    annotations, detections = [], []
    for number, (found, true) in enumerate(images):
        for box, kind in zip(true.boxes, true.classes, strict=True):
            xywh = coco_box(box)
            annotations.append(
                {"id": len(annotations) + 1, "image_id": number, "category_id": int(kind),
                 "bbox": xywh, "area": xywh[2] * xywh[3], "iscrowd": 0}
            )  # fmt: skip
        for box, kind, score in zip(found.boxes, found.classes, found.scores, strict=True):
            detections.append(
                {"image_id": number, "category_id": int(kind), "bbox": coco_box(box),
                 "score": float(score)}
            )  # fmt: skip
    truth = COCO(
        {
            "images": [{"id": n, "width": 200, "height": 200} for n in range(len(images))],
            "annotations": annotations,
            "categories": [{"id": n, "name": str(n)} for n in range(1, 7)],
        }
    )
    evaluation = COCOeval_faster(truth, truth.loadRes(detections), iouType="bbox")
    with redirect_stdout(io.StringIO()):
        evaluation.run()
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    return np.array([each[each > -1].mean() for each in precision])


def precision_of(images: list[tuple[Boxes, Boxes]], weights: np.ndarray) -> np.ndarray:
    matches = match(images)
    objects = sum(
        weight * (true.classes[:, None] == matches.classes).sum(axis=0)
        for weight, (_, true) in zip(weights, images, strict=True)
    )
    return average_precision(matches, weights, np.asarray(objects, float))


def test_average_precision_is_what_faster_coco_eval_computes() -> None:
    pytest.importorskip("faster_coco_eval")
    for seed in range(3):
        images = drawn_detections(np.random.default_rng(seed), 30)
        ours = precision_of(images, np.ones(30))
        assert 0.05 < ours.mean() < 0.95
        assert ours == pytest.approx(coco_precision(images), abs=1e-9)


def test_an_image_that_counts_twice_is_two_images() -> None:
    pytest.importorskip("faster_coco_eval")
    random = np.random.default_rng(9)
    images = drawn_detections(random, 20)
    # Without ties between different images a copy's place among its likes does not matter.
    images = [
        (Boxes(f.boxes, f.classes, f.scores + random.random(len(f.scores)) / 1000), t)
        for f, t in images
    ]
    images = [
        (Boxes(f.boxes[o], f.classes[o], f.scores[o]), t)
        for f, t in images
        for o in [np.argsort(-f.scores, kind="stable")]
    ]
    times = random.integers(0, 3, 20)
    repeated = [image for image, count in zip(images, times, strict=True) for _ in range(count)]
    assert precision_of(images, times.astype(float)) == pytest.approx(
        coco_precision(repeated), abs=1e-9
    )


def test_average_precision_at_its_ends() -> None:
    there = Boxes(np.array([[0.0, 0, 10, 10]]), np.array([1]), np.empty(0))
    nothing = Boxes(np.empty((0, 4)), np.empty(0, np.int64), np.empty(0))
    found = Boxes(there.boxes, there.classes, np.array([0.9]))
    assert precision_of([(found, there)], np.ones(1)) == pytest.approx(np.ones(len(IOUS)))
    assert precision_of([(nothing, there)], np.ones(1)) == pytest.approx(np.zeros(len(IOUS)))
    assert np.isnan(precision_of([(found, nothing)], np.ones(1))).all()
    wrong = Boxes(there.boxes, np.array([2]), np.array([0.9]))
    assert precision_of([(wrong, there)], np.ones(1)) == pytest.approx(np.zeros(len(IOUS)))
