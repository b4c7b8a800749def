"""A study's results as a page for people and as JSON."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from typing import Any

from utility_gate.evaluation import tables
from utility_gate.evaluation.classification import AREA_DRAWS
from utility_gate.evaluation.copies import RESAVED_QUALITY
from utility_gate.evaluation.detection import MAP_DRAWS
from utility_gate.evaluation.resample import DRAWS
from utility_gate.evaluation.results import (
    ClassifierResult,
    Crossing,
    DetectorResult,
    Encodings,
    Results,
    Row,
    Unseen,
)
from utility_gate.statistics import Interval
from utility_gate.value.arithmetic import LIMIT

_TABLE = {"classification": "Table I", "detection": "Table II"}


def to_json(value: Any) -> str:
    """Any of the results with all that is in it; null where there is no number."""
    return json.dumps(finite(dataclasses.asdict(value)), indent=2, allow_nan=False) + "\n"


def finite(value: Any) -> Any:
    """The same JSON value with null for NaN and infinity."""
    if isinstance(value, dict):
        return {key: finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def to_markdown(results: Results, pictures: Sequence[str] = ()) -> str:
    """All tables, each with a sentence that says what it shows; `pictures` are files beside it."""
    lines = _heading(results)
    for task in ("classification", "detection"):
        rows = [row for row in results.rows if row.task == task]
        lines += _rows(rows, task) if rows else []
    lines += _crossings(results.crossings) if results.crossings else []
    for unseen in results.unseen:
        lines += _unseen(unseen)
    for encodings in results.encodings:
        lines += _encodings(encodings)
    if pictures:
        lines += ["## Pictures", "", *(f"![{name}]({name})" for name in pictures), ""]
    lines += ["## Measured on", ""]
    lines += tables.markdown(("file", "SHA-256"), [list(each) for each in results.inputs.items()])
    return "\n".join(lines).rstrip() + "\n"


def _heading(results: Results) -> list[str]:
    return [
        "# Evaluation",
        "",
        f"utility-gate {results.version}. All photographs are held out: no predictor was trained "
        f"on them. In brackets 95 % intervals, from {DRAWS} resampled sets of source photographs "
        f"({AREA_DRAWS} for areas, {MAP_DRAWS} for mAP).",
        "",
        *tables.markdown(
            ("predictor", "card", "weights", "trained on", "useful from"),
            [
                [each.name, each.card, each.sha256[:12], each.trained_on, f"{each.useful_from:.3f}"]
                for each in results.predictors
            ],
        ),
    ]


def _rows(rows: Sequence[Row], task: str) -> list[str]:
    lines = [
        f"## {_TABLE[task]}: labels of {task} networks",
        "",
        "Each predictor on the held-out copies of the table that it was trained for, beside gates "
        "that need no training. Their thresholds are the best ones for the table's training side, "
        f"the predictor's is 1/2. The last column is the paper's ({_TABLE[task]}), for other "
        "networks and photographs.",
        "",
        *tables.rows_table(rows, task),
    ]
    for row in rows:
        result = row.evaluation
        lines += [
            f"**{row.predictor}**: {result.useful} useful and {result.non_useful} non-useful "
            f"copies of {result.sources} photographs; {result.undecided} undecided copies are left "
            f"out. {tables.error_sentence(result)} {_resaving(row)}",
            "",
        ]
        lines += tables.sets_table(result)
        kinds = {gate.name: gate.by_kind for gate in result.gates}
        lines += tables.kinds_table(kinds) if len(result.gates[0].by_kind) > 1 else []
    return lines


def _resaving(row: Row) -> str:
    own, quality = row.evaluation.gates[:2]
    if own.resaved_balanced_accuracy is None or quality.resaved_balanced_accuracy is None:
        return ""
    lost = own.balanced_accuracy.value - own.resaved_balanced_accuracy
    its = quality.balanced_accuracy.value - quality.resaved_balanced_accuracy
    return (
        f"Saving the copies once more at quality {RESAVED_QUALITY} takes {100 * lost:.1f} points "
        f"from it and {100 * its:.1f} from {quality.name}."
    )


def _crossings(crossings: Sequence[Crossing]) -> list[str]:
    losses = [each for each in crossings if each.loss is not None]
    worst = max(losses, key=lambda each: each.loss.value if each.loss else -math.inf)
    told = tables.points(worst.loss) if worst.loss else "-"
    return [
        "## From task to task",
        "",
        "Every predictor on every label table, and what it loses against the predictor that was "
        "trained for that table. The paper reports losses of about 2 % or less, in other measures "
        f"(section V.C). Most is lost by {worst.predictor} on {worst.table}: {told} points.",
        "",
        *tables.crossings_table(crossings),
    ]


def _unseen(unseen: Unseen) -> list[str]:
    left_out = (
        f" {unseen.left_out} photographs of the table are not held out and left out."
        if unseen.left_out
        else ""
    )
    if unseen.classifiers:
        return _classifiers(unseen.name, unseen.classifiers, left_out)
    return _detectors(unseen.name, unseen.detectors, left_out)


def _classifiers(name: str, results: Sequence[ClassifierResult], left_out: str) -> list[str]:
    rises = [(each.rise, result, each) for result in results for each in result.passed]
    wins = _count([rival.ahead for *_, each in rises for rival in each.rivals])
    return [
        f"## Unseen classifiers: {name}",
        "",
        f"Figure 2(a): the top-1 accuracy of networks{_unlabelled(results)}, on "
        f"{_size(results)}.{left_out} Each predictor lets pass what has at least this utility: "
        "1/2, then its card's own threshold. The rise is above 0 in "
        f"{_count([rise for rise, *_ in rises])}.",
        "",
        *tables.passed_table(results),
        "What a trivial gate gives that lets as many copies pass, those of its highest scores. The "
        f"predictor's accuracy is higher in {wins}.",
        "",
        *tables.passed_rivals_table(results),
        "Table III: what the predictor was trained on, both at utility 1/2. The paper finds "
        "differences of at most 0.9 points.",
        "",
        *tables.training_table(results, "top-1"),
        f"Error rate against the share discarded, lowest scores first, up to {LIMIT:.0%}: the mean "
        "over that range, lower is better, and where it lies between a gate that discards blindly "
        f"and one that knows the errors. The best gain of a gate is {_best_gain(results)}.",
        "",
        *tables.areas_table(results),
    ]


def _detectors(name: str, results: Sequence[DetectorResult], left_out: str) -> list[str]:
    rises = [each.rise for result in results for each in result.replaced]
    wins = _count([r.ahead for result in results for each in result.replaced for r in each.rivals])
    return [
        f"## Unseen detectors: {name}",
        "",
        f"Figure 2(b): COCO's mAP (IoU 0.5 to 0.95) and AP50 of networks{_unlabelled(results)}, on "
        f"{_size(results)}, when copies of a utility below 1/2 are replaced by their pristine "
        f"images, as in the paper.{left_out} The rise is above 0 in {_count(rises)}; replacing "
        "anything raises mAP, so see what follows.",
        "",
        *tables.replaced_table(results),
        "What gates give that replace as many copies, those of their lowest scores, or any "
        f"(random). The predictor's mAP is higher in {wins}.",
        "",
        *tables.replaced_rivals_table(results),
        "Table IV: what the predictor was trained on; the difference is the detection-trained "
        "one's mAP minus the other's. The paper finds differences of at most 0.003.",
        "",
        *tables.training_table(results, "mAP"),
    ]


def _encodings(encodings: Encodings) -> list[str]:
    return [
        f"## Encodings: {encodings.table}",
        "",
        f"{encodings.sources} held-out photographs by kind of degradation. The trivial gates' "
        f"thresholds are the best ones for the training side of {encodings.thresholds_of}. Where a "
        "class is missing the other one's recall stands instead.",
        "",
        *tables.encodings_table(encodings),
    ]


def _unlabelled(results: Sequence[ClassifierResult] | Sequence[DetectorResult]) -> str:
    """Of which networks a table is."""
    if any(result.voted for result in results):
        return " (those marked have a vote in a label table of this study and are not unseen)"
    return " whose outputs made no label"


def _size(results: Sequence[ClassifierResult] | Sequence[DetectorResult]) -> str:
    return f"{results[0].copies} degraded copies of {results[0].sources} held-out photographs"


def _count(intervals: Sequence[Interval]) -> str:
    """In how many cases a number is above 0, and in how many its whole interval is on either
    side."""
    above = sum(each.value > 0 for each in intervals)
    sure = sum(each.low > 0 for each in intervals)
    under = sum(each.high < 0 for each in intervals)
    return (
        f"{above} of {len(intervals)} cases; the whole interval is above 0 in {sure} and below 0 "
        f"in {under}"
    )


def _best_gain(results: Sequence[ClassifierResult]) -> str:
    """Gate, network and gain; the last two areas are random and oracle."""
    gains = [
        (area.gain.value, area.gate, result.network)
        for result in results
        for area in result.areas[:-2]
        if math.isfinite(area.gain.value)
    ]
    if not gains:
        return "not defined: no network errs, or all always do"
    value, gate, network = max(gains)
    return f"{value:.2f}, by {gate} for {network}"
