"""How good a detector is: what it found against what there was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.boxes import iou
from pipelines.detector import Detection

MATCH = 0.5
"""IoU from which a box of the right class is found."""

THRESHOLDS = (0.0, 0.25, 0.4, 0.5, 0.7)
"""The score thresholds of seed 000's tables 4 to 6."""


@dataclass(frozen=True, slots=True)
class Truth:
    """What there is on one image: boxes xyxy in its pixels, and their classes."""

    boxes: tuple[tuple[float, float, float, float], ...]
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """One score threshold: `mean_iou` is the mean over all detections of the IoU with what they
    found, 0 for those that found nothing."""

    threshold: float
    precision: float
    recall: float
    f1: float
    mean_iou: float


def match(found: Sequence[Detection], truth: Truth, *, any_class: bool = False) -> list[float]:
    """The IoU of each detection with the object that it found, 0 for those that found none.

    Surest first, each takes the object of its class (of any, with `any_class`) that it overlaps
    most and that nobody has taken; it is found from an IoU of `MATCH` on.
    """
    boxes = np.asarray(truth.boxes, np.float64).reshape(-1, 4)
    free = np.ones(len(boxes), bool)
    labels = np.asarray(truth.labels)
    overlaps = []
    for detection in found:
        fits = free & (any_class | (labels == detection.label)) if len(boxes) else free
        shares = np.where(fits, iou(np.asarray(detection.box), boxes), 0.0)
        best = int(shares.argmax()) if len(boxes) else -1
        if best >= 0 and shares[best] >= MATCH:
            free[best] = False
            overlaps.append(float(shares[best]))
        else:
            overlaps.append(0.0)
    return overlaps


def threshold_row(
    found: Sequence[Sequence[Detection]],
    truths: Sequence[Truth],
    threshold: float,
    *,
    any_class: bool = False,
) -> Row:
    """Precision, recall, F1 and mean IoU over all images of what is at least as sure as a
    threshold."""
    overlaps: list[float] = []
    for its, truth in zip(found, truths, strict=True):
        sure = [detection for detection in its if detection.score >= threshold]
        overlaps += match(sure, truth, any_class=any_class)
    objects = sum(len(truth.labels) for truth in truths)
    hits = sum(overlap > 0 for overlap in overlaps)
    precision = hits / len(overlaps) if overlaps else 0.0
    recall = hits / objects if objects else 0.0
    f1 = 2 * precision * recall / (precision + recall) if hits else 0.0
    mean_iou = float(np.mean(overlaps)) if overlaps else 0.0
    return Row(threshold, precision, recall, f1, mean_iou)


def average_precision(
    found: Sequence[Sequence[Detection]],
    truths: Sequence[Truth],
    classes: Sequence[str],
    *,
    any_class: bool = False,
) -> dict[str, float]:
    """AP at IoU 0.5 of each class that occurs, their mean "mAP50", and "mAP" over IoU 0.5 to 0.95,
    as COCO has them (needs the extra `train`). With `any_class` all is one class, "damage"."""
    import torch
    from torchmetrics.detection import MeanAveragePrecision

    names = ("damage",) if any_class else tuple(classes)

    def number(label: str) -> int:
        return 0 if any_class else names.index(label)

    def boxes(rows: Sequence[Any]) -> torch.Tensor:
        return torch.tensor(rows, dtype=torch.float32).reshape(-1, 4)

    metric = MeanAveragePrecision(
        iou_thresholds=None, class_metrics=True, backend="faster_coco_eval"
    )
    at_half = MeanAveragePrecision(
        iou_thresholds=[MATCH], class_metrics=True, backend="faster_coco_eval"
    )
    said = [
        {
            "boxes": boxes([d.box for d in its]),
            "scores": torch.tensor([d.score for d in its]),
            "labels": torch.tensor([number(d.label) for d in its], dtype=torch.int64),
        }
        for its in found
    ]
    true = [
        {
            "boxes": boxes(truth.boxes),
            "labels": torch.tensor([number(label) for label in truth.labels], dtype=torch.int64),
        }
        for truth in truths
    ]
    metric.update(said, true)
    at_half.update(said, true)
    half, whole = at_half.compute(), metric.compute()
    seen = [int(i) for i in half["classes"].reshape(-1)]
    per_class = [float(value) for value in half["map_per_class"].reshape(-1)]
    result = {names[i]: ap for i, ap in zip(seen, per_class, strict=True) if ap >= 0}
    return {**result, "mAP50": float(half["map"]), "mAP": float(whole["map"])}
