"""Boxes, xyxy: how much they overlap, and which of those that overlap remain."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]


def area(boxes: Floats) -> Floats:
    """The area (N,) of boxes (N, 4); 0 for those without an inside."""
    sides = np.maximum(boxes[..., 2:] - boxes[..., :2], 0)
    result: Floats = sides[..., 0] * sides[..., 1]
    return result


def iou(box: Floats, boxes: Floats) -> Floats:
    """Intersection over union, 0 to 1, of a box (4,) with boxes (N, 4); (N,). 0 where neither has
    an inside."""
    corners = [np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:], boxes[:, 2:])]
    common = area(np.concatenate(corners, axis=1))
    union = area(box) + area(boxes) - common
    result: Floats = np.divide(common, union, out=np.zeros_like(common), where=union > 0)
    return result


def suppress(
    boxes: Floats, scores: Floats, labels: npt.NDArray[np.integer[Any]], overlap: float, most: int
) -> list[int]:
    """Greedy non-maximum suppression: the numbers of at most `most` boxes, surest first, of which
    no two of one label overlap by more than `overlap` (IoU).

    Boxes are (N, 4), scores and labels (N,). Among equal scores the earlier box is the surer.
    """
    left = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    while len(left) and len(kept) < most:
        best, left = int(left[0]), left[1:]
        kept.append(best)
        same = labels[left] == labels[best]
        left = left[~same | ~(iou(boxes[best], boxes[left]) > overlap)]
    return kept
