"""COCO's average precision of detections that are weighed: what `pycocotools` computes for boxes
without crowds, all areas, at most 100 detections an image, but of images counted any number of
times, so that sources can be resampled without matching boxes anew.

Matching does not depend on how often an image counts. So it is done once, per image and class, at
every IoU; average precisions are then sums over matches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from utility_gate.evaluation.scores import Floats

Whole = npt.NDArray[np.int64]

IOUS = np.linspace(0.5, 0.95, 10)
"""The IoUs from which a detection finds an object; AP50 is the first one's."""

RECALLS = np.linspace(0, 1, 101)
"""Precision is averaged over these recalls."""


@dataclass(frozen=True, slots=True, eq=False)
class Boxes:
    """Boxes (N, 4) xyxy in pixels and their classes (N,); `scores` (N,) of detections, surest
    first, empty for what is true."""

    boxes: Floats
    classes: Whole
    scores: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Matches:
    """The M detections of some images by class, surest first: which image each one is of, where its
    class begins, and which find an object at each of `IOUS`, (M, 10). `classes` (C,) are those
    that some object has; `starts` (C + 1,) bounds each one's detections."""

    image: Whole
    hits: npt.NDArray[np.bool_]
    classes: Whole
    starts: Whole


def match(images: Sequence[tuple[Boxes, Boxes]]) -> Matches:
    """Match the detections of each image with what is there: pairs (detected, true)."""
    classes = np.unique(
        np.concatenate([np.empty(0, np.int64), *(true.classes for _, true in images)])
    )
    rows: list[tuple[Whole, Whole, Floats, npt.NDArray[np.bool_]]] = []
    for number, (found, true) in enumerate(images):
        for kind in np.unique(found.classes):
            its = found.classes == kind
            hits = match_one(iou(found.boxes[its], true.boxes[true.classes == kind]))
            count = int(its.sum())
            rows.append((np.full(count, number), np.full(count, kind), found.scores[its], hits))
    if not rows:
        empty = np.empty(0, np.int64)
        starts = np.zeros(len(classes) + 1, np.int64)
        return Matches(empty, np.empty((0, len(IOUS)), np.bool_), classes.astype(np.int64), starts)
    image, kinds, scores, hits = (np.concatenate(column) for column in zip(*rows, strict=True))
    kept = np.isin(kinds, classes)
    image, kinds, scores, hits = image[kept], kinds[kept], scores[kept], hits[kept]
    order = np.lexsort((-scores, kinds))  # stable: images in their order where scores are equal
    starts = np.searchsorted(kinds[order], np.append(classes, np.iinfo(np.int64).max))
    return Matches(
        image[order].astype(np.int64), hits[order], classes.astype(np.int64),
        starts.astype(np.int64),
    )  # fmt: skip


def average_precision(matches: Matches, weights: Floats, objects: Floats) -> Floats:
    """The mean over classes of the average precision at each of `IOUS`, (10,).

    `weights` says how often each image counts, `objects` (C,) how many objects of each of
    `matches.classes` there then are; classes without any have no say. NaN where none has.
    """
    counted = weights[matches.image]
    precisions = []
    for number in np.flatnonzero(objects > 0):
        its = slice(matches.starts[number], matches.starts[number + 1])
        present = counted[its] > 0
        weight = counted[its][present][:, None]
        if not len(weight):
            precisions.append(np.zeros(len(IOUS)))
            continue
        hits = matches.hits[its][present]
        found, all_ = np.cumsum(weight * hits, axis=0), np.cumsum(weight, axis=0)
        precision = np.maximum.accumulate((found / all_)[::-1])[::-1]
        precision = np.vstack([precision, np.zeros(len(IOUS))])
        recall = found / objects[number]
        at = [np.searchsorted(recall[:, column], RECALLS) for column in range(len(IOUS))]
        precisions.append(
            np.array([precision[rows, column].mean() for column, rows in enumerate(at)])
        )
    if not precisions:
        return np.full(len(IOUS), np.nan)
    result: Floats = np.mean(precisions, axis=0)
    return result


def match_one(ious: Floats) -> npt.NDArray[np.bool_]:
    """Which of D detections of one class, surest first, find one of G objects at each of `IOUS`,
    (D, 10), for overlaps (D, G). Each takes the free object that it overlaps most, if enough."""
    detections, objects = ious.shape
    hits = np.zeros((detections, len(IOUS)), np.bool_)
    if not objects:
        return hits
    free = np.ones((len(IOUS), objects), np.bool_)
    each = np.arange(len(IOUS))
    for number in range(detections):
        open_ = np.where(free, ious[number], -1.0)
        best = objects - 1 - open_[:, ::-1].argmax(axis=1)  # the last of equals, as COCO does
        enough = open_[each, best] >= np.minimum(IOUS, 1 - 1e-10)
        hits[number] = enough
        free[each[enough], best[enough]] = False
    return hits


def iou(one: Floats, other: Floats) -> Floats:
    """Overlaps (N, M) of boxes xyxy (N, 4) and (M, 4): intersection over union."""
    low = np.maximum(one[:, None, :2], other[None, :, :2])
    high = np.minimum(one[:, None, 2:], other[None, :, 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=2)
    areas = [np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) for boxes in (one, other)]
    union = areas[0][:, None] + areas[1][None] - shared
    result: Floats = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return result
