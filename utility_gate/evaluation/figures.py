"""Results as pictures (PNG): ROC, reliability, what is gained behind the gate, error against
discard."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from utility_gate.errors import ConfigError
from utility_gate.evaluation.classification import ORACLE, RANDOM
from utility_gate.evaluation.results import ClassifierResult, Results, Row, Unseen
from utility_gate.files import whole_file
from utility_gate.statistics import Interval
from utility_gate.value.figure import LOOK

try:
    import matplotlib
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter
except ImportError as _missing:
    raise ConfigError("pictures need matplotlib: pip install '.[report]'") from _missing

_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#B8A400")
"""Okabe and Ito's, the yellow darker."""

_BOUNDS: dict[str, dict[str, Any]] = {
    RANDOM: {"color": "#8A8A8A", "lw": 1.2, "ls": "--"},
    ORACLE: {"color": "#8A8A8A", "lw": 1.2, "ls": ":"},
}

_LOOK: Any = LOOK | {
    "legend.frameon": True,
    "legend.edgecolor": "none",
    "legend.framealpha": 0.85,
    "legend.fontsize": 8,
}

_ACROSS = 3
"""Panels side by side."""


def draw_all(results: Results, out: Path) -> list[str]:
    """Write every picture into a folder; their names, in the order of the page.

    Raises:
        OSError: if one cannot be written.
    """
    names = ["roc.png", "reliability.png"]
    _save(out / names[0], _draw_roc, results.rows)
    _save(out / names[1], _draw_reliability, results.rows)
    for unseen in results.unseen:
        names.append(f"unseen-{unseen.name}.png")
        _save(out / names[-1], _draw_behind, [unseen], width=8.0)
        if unseen.classifiers:
            names.append(f"discard-{unseen.name}.png")
            _save(out / names[-1], _draw_discard, unseen.classifiers)
    return names


def _save(
    path: Path, draw: Callable[[Axes, Any], None], panels: Sequence[Any], width: float = 4.2
) -> None:
    across = min(_ACROSS, len(panels))
    down = -(-len(panels) // across)
    with matplotlib.rc_context(_LOOK):
        figure = Figure(figsize=(width * across, 3.8 * down), layout="constrained", dpi=120)
        grid = figure.subplots(down, across, squeeze=False).ravel()
        for axes, panel in zip(grid, panels, strict=False):
            draw(axes, panel)
        for axes in grid[len(panels) :]:
            axes.set_axis_off()
        with whole_file(path) as partial:
            figure.savefig(partial, format="png", metadata={"Software": None})


def _draw_roc(axes: Axes, row: Row) -> None:
    for curve, gate, colour in zip(row.roc, row.evaluation.gates, _COLOURS, strict=False):
        label = f"{gate.name} ({gate.auroc.value:.3f})"
        axes.plot(curve.x, curve.y, color=colour, label=label, lw=1.6)
    axes.plot([0, 1], [0, 1], **_BOUNDS[RANDOM])
    _percents(axes)
    axes.set_xlabel("non-useful copies let through")
    axes.set_ylabel("useful copies let through")
    axes.set_title(f"{row.predictor}: ROC (area)")
    axes.legend(loc="lower right")


def _draw_reliability(axes: Axes, row: Row) -> None:
    bins = row.evaluation.reliability
    width = bins[0].high - bins[0].low
    middles = [(each.low + each.high) / 2 for each in bins]
    shares = [each.share for each in bins]
    axes.bar(middles, shares, 0.9 * width, color="#E8EEF4", label="share of copies")
    known = [each for each in bins if each.share > 0]
    x, y = [each.utility for each in known], [each.useful for each in known]
    axes.plot(x, y, marker="o", ms=4, color=_COLOURS[0], label="share that is useful")
    axes.plot([0, 1], [0, 1], **_BOUNDS[RANDOM])
    _percents(axes)
    axes.set_xlabel("utility")
    error = row.evaluation.ece_balanced
    axes.set_title(f"{row.predictor}: reliability, classes equal (ECE {error:.3f})")
    axes.legend(loc="upper left")


def _draw_behind(axes: Axes, unseen: Unseen) -> None:
    """Bars by network: as it is, and behind each predictor at 1/2."""
    groups: list[tuple[str, dict[str, Interval]]] = []
    for one in unseen.classifiers:
        behind = {each.predictor: each.top1 for each in reversed(one.passed)}
        groups.append((one.network, {"all copies": one.top1, **dict(reversed(behind.items()))}))
    for other in unseen.detectors:
        after = {each.predictor: each.map for each in other.replaced}
        groups.append((other.network, {"all copies": other.map, **after}))
    series = list(groups[0][1])
    width = 0.8 / len(series)
    colours = ("#B5B5B5", *_COLOURS)
    for number, name in enumerate(series):
        values = [found[name] for _, found in groups]
        heights = np.array([value.value for value in values])
        spread = np.array([[v.value - v.low, v.high - v.value] for v in values]).T
        places = np.arange(len(groups)) + (number - (len(series) - 1) / 2) * width
        axes.bar(
            places, np.nan_to_num(heights), 0.92 * width, yerr=np.maximum(np.nan_to_num(spread), 0),
            color=colours[number % len(colours)], label=name, error_kw={"lw": 0.8},
        )  # fmt: skip
    axes.set_xticks(range(len(groups)), [name for name, _ in groups], rotation=15)
    what = "top-1 accuracy on what passes" if unseen.classifiers else "mAP after replacement"
    axes.set_title(f"{unseen.name}: {what}, at utility 1/2")
    axes.set_ylim(bottom=0)
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _draw_discard(axes: Axes, result: ClassifierResult) -> None:
    areas = {each.gate: each.area.value for each in result.areas}
    colours = iter(_COLOURS * len(result.curves))
    for curve in result.curves:
        style = _BOUNDS.get(curve.name) or {"color": next(colours), "lw": 1.6}
        axes.plot(curve.x, curve.y, label=f"{curve.name} ({areas[curve.name]:.3f})", **style)
    axes.set_xlim(0, result.curves[0].x[-1])
    axes.set_ylim(bottom=0)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1.0))
    axes.grid()
    axes.set_xlabel("share discarded, lowest scores first")
    axes.set_title(f"{result.network}: errors among what is left (area)")
    axes.legend(loc="best")


def _percents(axes: Axes) -> None:
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.01)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.grid()
