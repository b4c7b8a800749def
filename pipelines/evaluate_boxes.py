"""A detector on images with boxes, as it serves (needs the extra `train`)."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pipelines.boxed import BoxedImage, by_original, read_boxed
from pipelines.detector import Detection, Detector
from pipelines.measure_boxes import THRESHOLDS, Truth, average_precision, threshold_row
from pipelines.tables import markdown, percent
from pipelines.training.detector_config import load_detector_config
from utility_gate.files import read_source

_LEAST = 0.02
"""The least score of detections that average precision looks at."""

RESULTS = "results.md"

Found = list[list[Detection]]


def evaluate_boxes(
    detector: Detector, originals: Sequence[Sequence[BoxedImage]], sides: Sequence[int]
) -> tuple[dict[str, Any], str]:
    """Average precision and seed 000's tables on the first copy of each original, at every input
    size: as numbers by size, and as Markdown."""
    test = [copies[0] for copies in originals]
    truths = [Truth(image.boxes, image.labels) for image in test]
    found = {side: detect_all(detector, test, side) for side in sides}
    classes = detector.card.classes
    aps = {side: average_precision(its, truths, classes) for side, its in found.items()}
    alike = {
        side: average_precision(its, truths, classes, any_class=True) for side, its in found.items()
    }
    tables = [ap_table(aps, alike)]
    for side, its in found.items():
        tables.append(f"Input {side}, any class:\n\n{threshold_table(its, truths)}")
    metrics = {str(side): {**aps[side], "any_class": alike[side]} for side in found}
    return metrics, "\n".join(tables)


def evaluate_from_file(detector: Detector, config: Path, data: Path, out: Path) -> str:
    """A detector on the test side of a TOML file's `[[boxes]]`, into `out`; returns the tables.

    Raises:
        ConfigError, TableError: if the file or the images cannot be used.
    """
    recipe, sets = load_detector_config(config)
    originals = by_original(read_boxed(sets, data, recipe.rename), "test")
    _, text = evaluate_boxes(detector, originals, recipe.sides)
    out.mkdir(parents=True, exist_ok=True)
    (out / RESULTS).write_text(text)
    return text


def detect_all(detector: Detector, images: Sequence[BoxedImage], side: int) -> Found:
    """The detections on every image, however unsure, in its own pixels."""

    def one(image: BoxedImage) -> list[Detection]:
        decoded = detector.decode(read_source(image.path))
        size = (decoded.width, decoded.height)
        return detector.detect(decoded.pixels, size, side=side, score=_LEAST)

    with ThreadPoolExecutor() as pool:
        return list(pool.map(one, images))


def ap_table(aps: dict[int, dict[str, float]], alike: dict[int, dict[str, float]]) -> str:
    """Average precision in percent, one row an input size."""
    classes = [name for name in next(iter(aps.values())) if name not in ("mAP50", "mAP")]
    columns = ("input", "mAP50", "mAP", *(f"AP50 {name}" for name in classes), "AP50 any class")
    rows = [
        [str(side), percent(ap["mAP50"]), percent(ap["mAP"]),
         *(percent(ap.get(name, float("nan"))) for name in classes),
         percent(alike[side]["mAP50"])]
        for side, ap in aps.items()
    ]  # fmt: skip
    return markdown(columns, rows)


def threshold_table(found: Found, truths: Sequence[Truth]) -> str:
    """Seed 000's tables: precision, recall, F1 and mean IoU in percent by score threshold."""
    rows = []
    for threshold in THRESHOLDS:
        row = threshold_row(found, truths, threshold, any_class=True)
        numbers = (row.precision, row.recall, row.f1, row.mean_iou)
        rows.append([f"{threshold:.2f}", *map(percent, numbers)])
    return markdown(("score from", "precision", "recall", "F1", "mean IoU"), rows)
