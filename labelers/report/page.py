"""The page: numbers, figures and the contact sheet put into one self-contained HTML file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from labelers.report import data, words
from labelers.report.figures import (
    OUTCOME_NAMES,
    draw_accuracies,
    draw_histograms,
    draw_shares,
    draw_utilities,
    draw_votes,
)
from labelers.report.read import Run, read_run
from labelers.report.sheet import REDUCTION, THUMB, WEBP_QUALITY, SheetRow, make_sheet
from labelers.rules import CcspRule, DetectionRule
from utility_gate.errors import ConfigError, TableError
from utility_gate.files import whole_file

try:
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup
except ImportError as _missing:
    raise ConfigError(
        "the report needs matplotlib and Jinja2: pip install '.[report]'"
    ) from _missing

SHOWN_SKIPPED = 10
SHOWN_GROUPS = 15
"""Rows of the most and of the least robust classes, where there are more than twice as many."""
FEW_SOURCES = 5
"""A share from fewer sources than that is marked."""

Figures = list[Markup]


@dataclass(frozen=True, slots=True)
class Cell:
    """One pair in the agreement matrix: text, how many copies, and a shade from 0 to 1."""

    text: str
    count: str
    shade: float


def write_report(
    folder: Path,
    out: Path,
    images: Path | None = None,
    labels: Path | None = None,
    sheet: int = 24,
) -> int:
    """Write the page about the labelling run in `folder`; returns its size in bytes.

    `images` is the folder of the pristine images, for a contact sheet of at most `sheet` sources;
    `labels` are other labels made of the run's observations. The same files make the same bytes.

    Raises:
        TableError: if the folder is no finished labelling run, a table is damaged, an image is not
            the one that was labelled, or the page cannot be written.
    """
    page = render(read_run(folder, labels), images, sheet).encode()
    try:
        with whole_file(out) as partial:
            partial.write_bytes(page)
    except OSError as error:
        raise TableError(f"{out}: could not be written: {error}") from error
    return len(page)


def render(run: Run, images: Path | None = None, sheet: int = 24) -> str:
    """The page as text; see `write_report`."""
    environment = Environment(
        loader=PackageLoader("labelers.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": words.percent,
        "decimal": words.decimal,
        "grouped": words.grouped,
    }
    deaths = data.find_deaths(run)
    own = ~run.augmented
    return environment.get_template("page.html.jinja").render(
        run=run,
        rule=run.rule,
        words=words,
        few=FEW_SOURCES,
        shown_skipped=SHOWN_SKIPPED,
        sets=words.source_sets(sorted(set(run.sources))),
        unaugmented=len(set(run.source[own].tolist())),
        right=words.name_right(run.task, run.metadata),
        counts=data.count_labels(run).tolist(),
        **_rates(run),
        **_shares(run),
        **_groups(run),
        **_histograms(run),
        **_agreement(run),
        **_utilities(run),
        **_sheet(run, deaths, images, sheet),
        deaths=_count_deaths(run, deaths),
    )


def _rates(run: Run) -> dict[str, Any]:
    rates = data.accuracies(run)
    low, high = rates.interval
    cells = np.stack([rates.share, low, high], axis=-1).tolist()
    return {
        "accuracy_figure": Markup(  # noqa: S704 - our own figure, its texts escaped by matplotlib
            draw_accuracies(run, rates, words.name_right(run.task, run.metadata))
        ),
        "accuracy_rows": list(zip(_names(run), cells, rates.trials.tolist(), strict=True)),
    }


def _shares(run: Run) -> dict[str, Any]:
    networks = range(len(run.networks))
    votes = [data.shares(data.count_votes(run, run.votes[:, n])) for n in networks]
    return {
        "shares_figure": Markup(draw_shares(run, data.shares(data.count_votes(run, run.label)))),  # noqa: S704
        "votes_figure": Markup(draw_votes(run, votes)),  # noqa: S704
        "outcomes": OUTCOME_NAMES,
    }


def _groups(run: Run) -> dict[str, Any]:
    rows = data.group_labels(run)
    ranked = data.rank(rows) if run.task == "classification" else rows
    parts: list[tuple[str, Sequence[data.GroupRow]]] = [("", ranked)]
    if run.task == "classification" and len(ranked) > 2 * SHOWN_GROUPS:
        parts = [
            ("most robust", ranked[:SHOWN_GROUPS]),
            ("least robust", ranked[: -SHOWN_GROUPS - 1 : -1]),
        ]
    tables = [(title, [(_name_group(run, row), row) for row in part]) for title, part in parts]
    return {"group_tables": tables, "groups": len(ranked)}


def _name_group(run: Run, row: data.GroupRow) -> str:
    if run.task == "classification":
        return str(run.metadata.get("categories", {}).get(str(row.low), row.low))
    return str(row.low) if row.low == row.high else f"{row.low}\u2013{row.high}"


def _histograms(run: Run) -> dict[str, Any]:
    match run.rule:
        case CcspRule(t_high=high, t_low=low):
            marks, what = [("T_H", high), ("T_L", low)], "CCSP"
        case DetectionRule(score=score):
            marks, what = [("score threshold", score)], "best score in the right place"
    drawn = [_inline(draw_histograms(run, data.confidences(run), marks, what))]
    overlaps = data.overlaps(run)
    if overlaps is not None and isinstance(run.rule, DetectionRule):
        marks = [("IoU threshold", run.rule.iou)]
        drawn.append(_inline(draw_histograms(run, overlaps, marks, "best IoU")))
    return {"histograms": drawn, "bins": data.BINS}


def _agreement(run: Run) -> dict[str, Any]:
    """The matrix: agreement above the diagonal, kappa below it, decided copies on it."""
    own = ~run.augmented
    found = data.agreements(run.votes[own])
    size, copies = len(run.networks), int(own.sum())

    def cell(a: int, b: int) -> Cell:
        both = int(found.both[a, b])
        if a == b:
            decided = both / copies if copies else float("nan")
            return Cell(words.percent(decided), words.grouped(both), 0.0)
        value = float((found.share if a < b else found.kappa)[a, b])
        text = words.percent(value) if a < b else words.decimal(value)
        return Cell(text, words.grouped(both), float(np.clip(np.nan_to_num(value), 0, 1)))

    return {"agreement": [[cell(a, b) for b in range(size)] for a in range(size)]}


def _utilities(run: Run) -> dict[str, Any]:
    quantiles, counts = data.utility_quantiles(run)
    rows = zip(_names(run)[1:], quantiles.tolist(), counts.tolist(), strict=True)
    return {
        "utility_figure": Markup(draw_utilities(run, quantiles)),  # noqa: S704
        "utility_rows": list(rows),
        "quantiles": data.QUANTILES,
    }


def _count_deaths(run: Run, deaths: Sequence[data.Death]) -> list[tuple[str, int]]:
    at = [death.step for death in deaths]
    return [(step.label, at.count(number)) for number, step in enumerate(run.steps)]


def _sheet(
    run: Run, deaths: Sequence[data.Death], images: Path | None, count: int
) -> dict[str, Any]:
    rows: list[SheetRow] | None = None
    if images is not None:
        rows = make_sheet(run, data.spread(run, deaths, count), images)
    return {
        "sheet": rows,
        "thumb_side": THUMB,
        "reduction": REDUCTION,
        "quality": WEBP_QUALITY,
    }


def _names(run: Run) -> list[str]:
    return ["pristine", *(step.label for step in run.steps)]


def _inline(figures: Sequence[str]) -> Figures:
    return [Markup(figure) for figure in figures]  # noqa: S704
