"""What a gate is worth, as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from utility_gate.errors import ConfigError
from utility_gate.files import whole_file
from utility_gate.value.arithmetic import GATES, ORACLE, QUALITY, RANDOM, UTILITY, Worth
from utility_gate.value.page import Setting

try:
    import matplotlib
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter
except ImportError as _missing:
    raise ConfigError("the picture needs matplotlib: pip install '.[report]'") from _missing

_STYLES: dict[str, dict[str, Any]] = {
    UTILITY: {"color": "#0072B2", "lw": 2.0},
    QUALITY: {"color": "#E69F00", "lw": 1.5},
    RANDOM: {"color": "#8A8A8A", "lw": 1.2, "ls": "--"},
    ORACLE: {"color": "#8A8A8A", "lw": 1.2, "ls": ":"},
}
"""Okabe and Ito's blue and orange; greys for the bounds."""

LOOK: Any = {
    "font.size": 9,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "grid.color": "#E3E3E3",
    "legend.frameon": False,
    "text.parse_math": False,  # a pipeline may be called "$x$"
}
"""How every picture of ours looks."""


def draw(worth: Worth, setting: Setting, path: Path) -> None:
    """Write a PNG: accuracies by quality, and the error-versus-discard curves.

    Raises:
        OSError: if it cannot be written.
    """
    with matplotlib.rc_context(LOOK):
        figure = Figure(figsize=(10.0, 4.0), layout="constrained", dpi=120)
        left, right = figure.subplots(1, 2)
        _draw_accuracies(left, worth)
        _draw_curves(right, worth)
        figure.suptitle(f"{setting.gate} before {setting.pipeline}", x=0.01, ha="left", fontsize=10)
        with whole_file(path) as partial:
            figure.savefig(partial, format="png", metadata={"Software": None})


def _draw_accuracies(axes: Axes, worth: Worth) -> None:
    places = np.arange(len(worth.steps))
    passed = [step.passed.value for step in worth.steps]
    axes.bar(places, passed, color="#E8EEF4", width=0.9, label="share that passes")
    for name, shift, style, marker in (
        ("accuracy", -0.06, _STYLES[RANDOM], "o"), ("accuracy_passed", 0.06, _STYLES[UTILITY], "s"),
    ):  # fmt: skip
        values = [getattr(step, name) for step in worth.steps]
        label = "accuracy without the gate" if name == "accuracy" else "on what passes"
        x = places + shift
        axes.plot(x, [v.value for v in values], marker=marker, ms=4, label=label, **style)
        axes.vlines(x, [v.low for v in values], [v.high for v in values], style["color"], lw=1)
    axes.set_xticks(places, [str(step.quality) for step in worth.steps])
    axes.set_xlabel("JPEG quality")
    axes.set_ylim(0, 1.02)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.grid(axis="y")
    axes.set_axisbelow(True)
    axes.set_title("accuracy; bars are 95 % intervals")
    axes.legend(loc="lower left")


def _draw_curves(axes: Axes, worth: Worth) -> None:
    gains = {each.gate: each.gain.value for each in worth.areas}
    for gate in GATES:
        known = gate in (UTILITY, QUALITY) and np.isfinite(gains[gate])
        label = f"{gate} (gain {gains[gate]:.2f})" if known else gate
        axes.plot(worth.discarded, worth.curves[gate], label=label, **_STYLES[gate])
    stopped = 1 - worth.passed.value
    if stopped <= worth.discarded[-1]:
        axes.plot([stopped], [1 - worth.accuracy_passed.value], "o", ms=6, color="#0072B2")
        axes.annotate(
            "this gate", (stopped, 1 - worth.accuracy_passed.value), xytext=(6, 6),
            textcoords="offset points",
        )  # fmt: skip
    axes.set_xlim(0, worth.discarded[-1])
    axes.set_ylim(bottom=0)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1.0))
    axes.grid()
    axes.set_xlabel("share discarded, lowest scores first")
    axes.set_title("error rate among what is left")
    axes.legend(loc="best")
