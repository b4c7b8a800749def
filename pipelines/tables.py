"""Results as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from pipelines.evaluate import HeadResult
from pipelines.measure import precision_recall
from utility_gate.statistics import Interval


def percent(value: float) -> str:
    """0.9134 to "91.3"."""
    return f"{100 * value:.1f}"


def with_interval(interval: Interval) -> str:
    """A share with its 95 % interval, in percent."""
    return f"{percent(interval.value)} ({percent(interval.low)} to {percent(interval.high)})"


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def head_table(results: Sequence[HeadResult]) -> str:
    """One row a head; percent."""
    columns = (
        "head", "classes", "images", "accuracy (95 %)", "with views", "top 3", "precision",
        "recall", "F2", "ECE", "majority class",
    )  # fmt: skip
    rows = []
    for result in results:
        scores = result.scores
        views = "" if result.with_views is None else percent(result.with_views)
        numbers = (scores.precision, scores.recall, scores.f_beta, scores.ece, scores.majority)
        rows.append(
            [result.head.name, str(len(result.head.classes)), str(scores.images),
             with_interval(scores.accuracy), views, percent(scores.top3.value),
             *map(percent, numbers)]
        )  # fmt: skip
    return markdown(columns, rows)


def class_table(result: HeadResult) -> str:
    """One row a class of a head; percent."""
    precision, recall, f_beta = precision_recall(result.confusion)
    rows = [
        [name, str(int(count)), *map(percent, (precision[i], recall[i], f_beta[i]))]
        for i, (name, count) in enumerate(
            zip(result.head.classes, np.asarray(result.confusion).sum(1), strict=True)
        )
        if count
    ]
    return markdown((result.head.name, "images", "precision", "recall", "F2"), rows)


def multi_label_tables(accuracies: Mapping[str, Interval]) -> list[str]:
    """One table of the multi-label heads, if there are any; percent."""
    rows = [[name, with_interval(accuracy)] for name, accuracy in accuracies.items()]
    return [markdown(("head", "binary accuracy (95 %)"), rows)] if rows else []
