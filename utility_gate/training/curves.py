"""Learning curves as a picture."""

from __future__ import annotations

import csv
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from utility_gate.training.trainer import log_files

CURVES = "curves.png"
_PANELS = (
    ("training loss (cross-entropy)", ("train_loss",)),
    ("validation", ("val_auroc", "val_balanced_accuracy")),
)


def draw_curves(out: Path) -> Path:
    """Draw what the CSV logs of a run in `out` say of each epoch, as `out`/curves.png."""
    rows = [row for log in log_files(out) for row in _read(log)]
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(_PANELS))
    for axis, (title, names) in zip(axes, _PANELS, strict=True):
        for name in names:
            # An epoch that was begun twice counts as it ended.
            known = {int(row["epoch"]) + 1: float(row[name]) for row in rows if row.get(name)}
            axis.plot(list(known), list(known.values()), marker=".", label=name)
        axis.set(title=title, xlabel="epoch")
        axis.legend()
        axis.grid(alpha=0.3)
    path = out / CURVES
    figure.savefig(path, dpi=120, metadata={"Software": None})
    return path


def _read(log: Path) -> list[dict[str, str]]:
    with log.open(newline="") as file:
        return list(csv.DictReader(file))
