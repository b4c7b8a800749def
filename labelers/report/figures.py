"""Numbers to figures, as SVG text that stands in a page: the same numbers, the same bytes."""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from html import escape
from typing import Any

import numpy as np

from labelers.report.data import BINS, Histogram, Rates
from labelers.report.read import Numbers, Reals, Run
from utility_gate.errors import ConfigError

try:
    import matplotlib
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, MultipleLocator
except ImportError as _missing:
    raise ConfigError(
        "the report needs matplotlib and Jinja2: pip install '.[report]'"
    ) from _missing

USEFUL_COLOUR, NON_USEFUL_COLOUR, UNDECIDED_COLOUR = "#0072B2", "#D55E00", "#C9C9C9"
OUTCOME_COLOURS = (USEFUL_COLOUR, NON_USEFUL_COLOUR, UNDECIDED_COLOUR)
OUTCOME_NAMES = ("useful", "non-useful", "undecided")
"""In the order of `labelers.report.data.OUTCOMES`; Okabe and Ito's blue and vermillion."""

_NETWORK_COLOURS = ("#000000", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D31")
_MARKERS = "os^Dv<>P"
_WIDTH = 10.4  # inches
_INK, _FAINT = "#333333", "#8A8A8A"
_TICK_LETTERS = 16
"""Longer labels of degradations are broken there."""
_COLUMNS = 11
"""Of histograms in one row; a longer family goes on in the next figure."""
_PITCH = 1.3
"""From one histogram's zero to the next one's; each is 1 wide."""

_STYLE = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 8.5,
    "text.parse_math": False,  # a network may be called "$x$"
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _FAINT,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 8.5,
    "axes.titlelocation": "left",
    "xtick.color": _FAINT,
    "ytick.color": _FAINT,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "grid.color": "#E3E3E3",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "svg.fonttype": "none",
    "path.simplify": False,
}


class StepAxis:
    """Where each degradation stands on the x axis: families side by side with a gap between
    them, each one's pristine image first if it is shown."""

    def __init__(self, run: Run, pristine: bool) -> None:
        self.segments: list[tuple[str, list[int], Numbers]] = []
        """Family, its rows in a table with the pristine image as row 0, and their places."""
        at = 0
        for family, steps in run.families.items():
            rows = [0] * pristine + [1 + step for step in steps]
            self.segments.append((family, rows, np.arange(at, at + len(rows))))
            at += len(rows) + 1
        self.end = at - 2
        names = [
            "pristine" if row == 0 else textwrap.fill(run.steps[row - 1].short, _TICK_LETTERS)
            for _, rows, _ in self.segments
            for row in rows
        ]
        self._names = names
        longest = max(len(line) for name in names for line in name.split("\n"))
        self._upright = longest * (self.end + 1) > 120 and longest > 3
        self.height = longest * 0.065 if self._upright else 0.0
        """Inches that upright tick labels take away from the axes."""

    @property
    def crowded(self) -> bool:
        """Whether two of these axes side by side would be illegible."""
        return self.end > 20

    def dress(self, axes: Axes, size: float = 8.0, named: bool = True) -> None:
        """Ticks by degradation, families named above them where there are several."""
        places = [int(place) for _, _, at in self.segments for place in at]
        axes.set_xticks(places, self._names if named else [], rotation=90 * self._upright)
        lines = 1 + max(name.count("\n") for name in self._names)
        most = 580 / (self.end + 1) / lines  # points, so that upright neighbours stay apart
        axes.tick_params(axis="x", labelsize=min(size, most) if self._upright else size, length=2)
        axes.set_xlim(-0.7, self.end + 0.7)
        if len(self.segments) > 1:
            for family, _, at in self.segments:
                axes.text(
                    float(at.mean()), 1.01, family, ha="center", va="bottom",
                    transform=axes.get_xaxis_transform(), fontsize=size, color=_FAINT,
                )  # fmt: skip
        family = f": {self.segments[0][0]}" if len(self.segments) == 1 else ""
        axes.set_xlabel(f"degradation{family}" if named else "")


def draw_accuracies(run: Run, rates: Rates, what: str) -> str:
    """A line per network and family; onlookers dashed; bars are the intervals."""
    with _drawing(f"accuracy {what}"):
        axis, (low, high) = StepAxis(run, pristine=True), rates.interval
        figure = Figure(figsize=(_WIDTH, 3.9 + axis.height), layout="constrained")
        axes = figure.add_subplot()
        for number, name in enumerate(run.networks):
            style = _network_style(number, onlooker=number >= run.voters)
            shift = (number - (len(run.networks) - 1) / 2) * min(0.09, 0.5 / len(run.networks))
            for position, (_, rows, at) in enumerate(axis.segments):
                share, x = rates.share[rows, number], at + shift
                axes.vlines(x, low[rows, number], high[rows, number], style["color"], lw=0.8)
                label = name + (" (onlooker)" if number >= run.voters else "")
                axes.plot(x, share, **style, label=None if position else label)
        axis.dress(axes)
        _dress_shares(axes, what)
        figure.legend(loc="outside upper left", ncols=5)
        return _svg(figure, f"{what} of each network by degradation")


def draw_shares(run: Run, shares: Reals) -> str:
    """Stacked bars of the ensemble's labels, (steps, 3)."""
    with _drawing("labels"):
        axis = StepAxis(run, pristine=False)
        figure = Figure(figsize=(_WIDTH, 3.3 + axis.height), layout="constrained")
        axes = figure.add_subplot()
        _stack(axes, axis, shares, numbers=axis.end < 20)
        axis.dress(axes)
        _dress_shares(axes, "share of copies")
        figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=3)
        return _svg(figure, "Labels of the ensemble by degradation")


def draw_votes(run: Run, shares: Sequence[Reals]) -> str:
    """The same bars, small, for each network's votes."""
    axis = StepAxis(run, pristine=False)
    columns = 1 if axis.crowded else 3 if len(run.networks) in (3, 5, 6) else 2
    rows = -(-len(run.networks) // columns)
    with _drawing("votes"):
        height = 0.5 + (1.75 if columns > 1 else 1.4) * rows + axis.height
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
        for number, (axes, name) in enumerate(zip(grid, run.networks, strict=False)):
            _stack(axes, axis, shares[number], numbers=False)
            lowest = number + columns >= len(run.networks)
            axis.dress(axes, size=7, named=lowest)
            _dress_shares(axes, "share of copies" if number % columns == 0 else "")
            axes.tick_params(labelbottom=lowest)
            onlooker = " (onlooker)" if number >= run.voters else ""
            axes.set_title(name + onlooker, pad=14 if len(axis.segments) > 1 else 5)
        for axes in grid[len(run.networks) :]:
            axes.remove()
        handles = grid[0].get_legend_handles_labels()
        figure.legend(*handles, loc="outside upper left", ncols=3)
        return _svg(figure, "Votes of each network by degradation")


def draw_histograms(
    run: Run, histogram: Histogram, marks: Sequence[tuple[str, float]], what: str
) -> list[str]:
    """Figures of small histograms: a row per network, a column per degradation, upwards what the
    network got right, downwards the rest; `marks` are thresholds."""
    drawn = []
    for family, steps in run.families.items():
        columns = [0, *(1 + step for step in steps)]
        for start in range(0, len(columns), _COLUMNS):
            part = columns[start : start + _COLUMNS]
            with _drawing(f"{what} {family} {start}"):
                drawn.append(_draw_histograms(run, histogram, marks, what, part))
    return drawn


def draw_utilities(run: Run, quantiles: Reals) -> str:
    """Median, middle half and middle nine tenths of the continuous utility by degradation."""
    with _drawing("utility"):
        axis = StepAxis(run, pristine=False)
        figure = Figure(figsize=(_WIDTH, 3.2 + axis.height), layout="constrained")
        axes = figure.add_subplot()
        axes.axhline(0, color=_FAINT, lw=0.7)
        for _, rows, at in axis.segments:
            q05, q25, q50, q75, q95 = quantiles[[row - 1 for row in rows]].T
            axes.vlines(at, q05, q95, USEFUL_COLOUR, lw=1)
            axes.vlines(at, q25, q75, USEFUL_COLOUR, lw=7, alpha=0.45)
            axes.plot(at, q50, color=_INK, lw=0.8, marker="o", ms=4, mfc="white")
        axis.dress(axes)
        axes.set_ylabel("utility (Eq. 2), mean over networks")
        axes.grid(axis="y")
        axes.set_axisbelow(True)
        return _svg(figure, "Continuous utility by degradation")


def _draw_histograms(
    run: Run, histogram: Histogram, marks: Sequence[tuple[str, float]], what: str, part: list[int]
) -> str:
    height = 0.75 + 0.95 * len(run.networks)
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    grid = figure.subplots(len(run.networks), 1, sharex=True, sharey=True, squeeze=False).ravel()
    zeros = [column * _PITCH for column in range(len(part))]
    for number, (axes, name) in enumerate(zip(grid, run.networks, strict=True)):
        for zero, row in zip(zeros, part, strict=True):
            _mirror(axes, zero, histogram.right[row, number], histogram.wrong[row, number])
        for style, (_, value) in zip(("--", ":"), marks, strict=False):
            axes.vlines([z + value for z in zeros], -1, 1, _INK, ls=style, lw=0.7)
        _dress_histograms(axes, zeros)
        onlooker = "\n(onlooker)" if number >= run.voters else ""
        axes.set_ylabel(
            textwrap.fill(name, 20) + onlooker, rotation=0, ha="right", va="center", fontsize=8
        )
    for zero, row in zip(zeros, part, strict=True):
        label = "pristine" if row == 0 else run.steps[row - 1].label
        grid[0].text(
            zero + 0.5, 1.04, textwrap.fill(label, 13), ha="center", va="bottom",
            transform=grid[0].get_xaxis_transform(), fontsize=8,
        )  # fmt: skip
    names = ", ".join(f"{label} = {value:g}" for label, value in marks)
    grid[-1].set_xlabel(f"{what}   ({names})")
    return _svg(figure, f"Histograms of {what} by degradation and network")


def _mirror(axes: Axes, zero: float, right: Reals, wrong: Reals) -> None:
    """One histogram on a square-root scale, right upwards and wrong downwards."""
    edges = zero + np.linspace(0, 1, BINS + 1)
    axes.hlines(0, zero, zero + 1, _FAINT, lw=0.6)
    for sign, share, colour in ((1, right, USEFUL_COLOUR), (-1, wrong, NON_USEFUL_COLOUR)):
        heights = sign * np.sqrt(share)
        if np.any(heights != 0) and not np.isnan(heights).any():
            axes.stairs(heights, edges, fill=True, color=colour, lw=0)


def _dress_histograms(axes: Axes, zeros: list[float]) -> None:
    axes.set_ylim(-1.02, 1.02)
    axes.set_xlim(-0.15, zeros[-1] + 1.15)
    shares = [1.0, 0.25, 0.0, 0.25, 1.0]
    places = [-1.0, -0.5, 0.0, 0.5, 1.0]
    axes.set_yticks(places, [f"{share:.0%}" for share in shares], fontsize=6.5)
    axes.set_xticks([z + v for z in zeros for v in (0, 1)], ["0", "1"] * len(zeros), fontsize=7)
    axes.tick_params(length=2)
    axes.spines["bottom"].set_visible(False)
    axes.spines["left"].set_visible(False)
    axes.yaxis.tick_right()


def _stack(axes: Axes, axis: StepAxis, shares: Reals, numbers: bool) -> None:
    at = np.concatenate([places for _, _, places in axis.segments])
    rows = [row - 1 for _, own, _ in axis.segments for row in own]
    base = np.zeros(len(at))
    for outcome, colour in enumerate(OUTCOME_COLOURS):
        share = np.nan_to_num(shares[rows, outcome])
        axes.bar(at, share, 0.84, base, color=colour, label=OUTCOME_NAMES[outcome])
        for x, y, part in zip(at, base, share, strict=True):
            if numbers and part >= 0.06:
                ink = _INK if colour == UNDECIDED_COLOUR else "white"
                axes.text(
                    x, y + part / 2, f"{part:.0%}", ha="center", va="center", color=ink,
                    fontsize=7.5,
                )  # fmt: skip
        base = base + share


def _dress_shares(axes: Axes, label: str) -> None:
    axes.set_ylim(0, 1.005)
    axes.yaxis.set_major_locator(MultipleLocator(0.25))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
    axes.set_ylabel(label)
    axes.grid(axis="y")
    axes.set_axisbelow(True)


def _network_style(number: int, onlooker: bool) -> dict[str, Any]:
    return {
        "color": _NETWORK_COLOURS[number % len(_NETWORK_COLOURS)],
        "marker": _MARKERS[number % len(_MARKERS)],
        "ls": "--" if onlooker else "-",
        "mfc": "white" if onlooker else None,
        "ms": 4,
        "lw": 1.2,
    }


@contextmanager
def _drawing(name: str) -> Iterator[None]:
    """Our style, whatever this machine's matplotlibrc says. The salt keeps the identifiers of
    figures apart that stand in one page, and the same from run to run."""
    defaults = {k: v for k, v in matplotlib.rcParamsDefault.items() if not k.startswith("backend")}
    salt = {"svg.hashsalt": f"utility-gate {name}", "svg.id": None}
    style: Any = {**defaults, **_STYLE, **salt}
    with matplotlib.rc_context(style):
        yield


def _svg(figure: Figure, title: str) -> str:
    """The figure as an `<svg>` element for HTML: no prologue, no metadata, a title for readers
    who do not see it, and no identifiers but those that are referred to."""
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(buffer, format="svg", metadata=nothing, transparent=True)
    text = buffer.getvalue()
    opening = re.compile(r'<svg\b[^>]*?viewBox="([^"]+)"[^>]*>', re.DOTALL).search(text)
    assert opening is not None  # noqa: S101 - matplotlib writes no SVG without
    body = re.sub(r'<g id="[^"]*"', "<g", text[opening.end() :])
    body = re.sub(r"<defs>\s*<style.*?</defs>", "", body, count=1, flags=re.DOTALL)  # page-wide
    body = re.sub(r"\s*\n\s*", "\n", body)
    return f'<svg viewBox="{opening[1]}" role="img" aria-label="{escape(title)}">{body}'
