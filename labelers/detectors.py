"""Detectors: detections to observations, which reference object each one overlaps, and how far."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from labelers.images import ImageBatch
from labelers.networks import Detections, Detector, Floats
from labelers.truth import Truth, class_numbers
from utility_gate.degrade import View
from utility_gate.errors import NetworkError
from utility_gate.types import Copy, DetectionObservation

SCORE_FLOOR = 0.05
"""Detections below this score are not stored; the habit of COCO evaluations."""

MOST_DETECTIONS = 100
"""Of the rest, so many of the surest are stored; the habit of COCO evaluations."""


@dataclass(frozen=True, slots=True)
class Objects:
    """What is to be found: `boxes` (N, 4) float32 xyxy in pixels of the source, `classes` (N,) in
    the network's numbering."""

    boxes: Floats
    classes: npt.NDArray[np.int64]


class DetectorLook:
    """One detector looking at the copies of one source, batch after batch, the pristine image
    first. Without ground truth what it finds there with a score of at least `reference_score` is
    what is to be found.

    `names` are the ground truth's categories.

    Raises:
        NetworkError: if the detector lacks one of them.
    """

    def __init__(
        self, network: Detector, truth: Truth, names: dict[int, str], reference_score: float
    ) -> None:
        self._network, self._reference_score = network, reference_score
        self._objects = objects_of(truth, class_numbers(names, network))
        self.forward_seconds = 0.0

    def look(
        self, copies: list[Copy], views: list[View], images: ImageBatch
    ) -> list[DetectionObservation]:
        """One observation per copy.

        Raises:
            NetworkError: if boxes or scores are not finite, or scores not in [0, 1].
        """
        inputs = self._network.prepare(images)
        started = time.perf_counter()
        detections = self._network.forward(inputs)
        self.forward_seconds += time.perf_counter() - started
        found = [place(one, view) for one, view in zip(detections, views, strict=True)]
        if self._objects is None:
            self._objects = confident(found[0], self._reference_score)
        return [
            to_observation(copy, self._network, one, self._objects, view)
            for copy, one, view in zip(copies, found, views, strict=True)
        ]


def objects_of(truth: Truth, numbers: dict[int, int]) -> Objects | None:
    """The ground truth's objects with the network's `numbers` for their categories; None if there
    is no ground truth."""
    if truth.boxes is None or truth.categories is None:
        return None
    return Objects(
        np.array(truth.boxes, np.float32).reshape(-1, 4),
        np.array([numbers[category] for category in truth.categories], np.int64),
    )


def place(found: Detections, view: View) -> Detections:
    """Boxes in parts of a copy, to pixels of the source of which the copy shows `view`."""
    left, top, right, bottom = view
    scale = np.array([right - left, bottom - top] * 2, np.float32)
    offset = np.array([left, top] * 2, np.float32)
    return Detections(found.boxes * scale + offset, found.scores, found.classes)


def confident(found: Detections, score: float) -> Objects:
    """The detections that stand for the truth where the pristine image is the reference."""
    sure = found.scores >= np.float32(score)
    return Objects(found.boxes[sure], found.classes[sure])


def to_observation(
    copy: Copy, network: Detector, found: Detections, reference: Objects, view: View
) -> DetectionObservation:
    """What `network` found on one copy, beside what was to be found.

    `found` is in pixels of the source. Of a reference object only the part that the copy shows
    counts.

    Raises:
        NetworkError: if boxes or scores are not finite, or scores not in [0, 1].
    """
    valid = np.isfinite(found.boxes).all() and ((found.scores >= 0) & (found.scores <= 1)).all()
    if not valid:
        raise NetworkError(
            f"{network.name}: expected finite boxes and scores in [0, 1] for {copy.source}"
        )
    order = np.argsort(-found.scores, kind="stable")[:MOST_DETECTIONS]
    order = order[found.scores[order] >= np.float32(SCORE_FLOOR)]
    boxes, classes = found.boxes[order], found.classes[order]
    objects, ious = _match(boxes, classes, reference, view)
    return DetectionObservation(
        **copy.fields(),
        network=network.name,
        network_digest=network.digest,
        reference_objects=len(reference.classes),
        boxes=boxes.tolist(),
        classes=classes.tolist(),
        scores=found.scores[order].tolist(),
        objects=objects.tolist(),
        ious=ious.tolist(),
    )


def _match(
    boxes: Floats, classes: npt.NDArray[np.int64], reference: Objects, view: View
) -> tuple[npt.NDArray[np.int64], Floats]:
    """For each box the object of its class with the highest IoU, and that IoU; -1 and 0 if none."""
    if not len(boxes) or not len(reference.classes):
        return np.full(len(boxes), -1), np.zeros(len(boxes), np.float32)
    import torch
    from torchvision.ops import box_iou

    left, top, right, bottom = view
    shown = reference.boxes.copy()
    shown[:, 0::2] = shown[:, 0::2].clip(left, right)
    shown[:, 1::2] = shown[:, 1::2].clip(top, bottom)
    overlaps = box_iou(torch.from_numpy(boxes), torch.from_numpy(shown)).nan_to_num().numpy()
    overlaps[classes[:, None] != reference.classes[None]] = 0
    best = overlaps.argmax(axis=1)
    ious = np.minimum(overlaps[np.arange(len(best)), best], 1)
    return np.where(ious > 0, best, -1), ious
