"""Learning curves and confusion matrices as PNG (needs the extra `train`)."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from pipelines.evaluate import HeadResult

_MANY = 30


def draw_history(history: Path, out: Path) -> None:
    """Losses and validation accuracies by epoch, both stages one after the other (seed 000,
    figure 2)."""
    with history.open(newline="") as file:
        rows = list(csv.DictReader(file))
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    epochs = np.arange(1, len(rows) + 1)
    for axes, prefixes in ((left, ("train_loss", "val_loss")), (right, ("val_accuracy_",))):
        for column in rows[0]:
            if column.startswith(prefixes):
                values = [float(row[column]) if row[column] else np.nan for row in rows]
                axes.plot(epochs, values, marker=".", label=column.replace("_", " "))
        axes.set_xlabel("epoch")
        heads = sum(row["stage"] == "heads" for row in rows)
        axes.axvline(heads + 0.5, color="0.8", linestyle="--")
        axes.legend()
    left.set_ylabel("loss")
    right.set_ylabel("accuracy")
    figure.savefig(out, dpi=120)


def draw_confusion(result: HeadResult, out: Path) -> None:
    """The confusion matrix of a head, each true class (down) as shares of its images."""
    table = result.confusion.astype(float)
    shares = table / np.maximum(table.sum(1, keepdims=True), 1)
    classes = result.head.classes
    side = min(12.0, 2.5 + 0.45 * len(classes))
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, vmin=0, vmax=1, cmap="Blues")
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    if len(classes) <= _MANY:
        axes.set_xticks(range(len(classes)), classes, rotation=90)
        axes.set_yticks(range(len(classes)), classes)
        for true, row in enumerate(result.confusion):
            for said, count in enumerate(row):
                dark = shares[true, said] > 0.5
                if count:
                    axes.text(said, true, str(count), ha="center", va="center",
                              color="white" if dark else "black", fontsize=8)  # fmt: skip
    figure.savefig(out, dpi=120)
