"""Results as Markdown tables: one function a table."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from utility_gate.evaluation.classification import ORACLE, RANDOM
from utility_gate.evaluation.results import (
    ClassifierResult,
    Crossing,
    DetectorResult,
    Encodings,
    Evaluation,
    KindResult,
    Row,
)
from utility_gate.evaluation.scores import ECE_BINS
from utility_gate.statistics import Interval

PAPER_TOGETHER = {"classification": "93.3%", "detection": "92.8%"}
"""The paper's accuracies for three networks' labels together (Tables I and II)."""

PAPER_SINGLE = {"classification": "84.2% to 91.2%", "detection": "81.3% to 84.8%"}
"""The paper's accuracies for one network's labels."""

Cells = Sequence[str]


def markdown(columns: Cells, rows: Iterable[Cells]) -> list[str]:
    """A table, line by line, with an empty line after it."""
    lines = [columns, ["---"] * len(columns), *rows]
    return [*("| " + " | ".join(line) + " |" for line in lines), ""]


def points(interval: Interval) -> str:
    """A difference of shares, in percentage points."""
    if not math.isfinite(interval.value):
        return "-"
    value, low, high = (100 * each for each in (interval.value, interval.low, interval.high))
    return f"{value:+.1f} ({low:+.1f} to {high:+.1f})"


def number(interval: Interval, digits: int = 3) -> str:
    """A number with its interval."""
    if not math.isfinite(interval.value):
        return "-"
    value, low, high = (f"{x:.{digits}f}" for x in (interval.value, interval.low, interval.high))
    return f"{value} ({low} to {high})"


def signed(interval: Interval) -> str:
    """A difference of numbers with its interval."""
    if not math.isfinite(interval.value):
        return "-"
    return f"{interval.value:+.3f} ({interval.low:+.3f} to {interval.high:+.3f})"


def evaluation_markdown(evaluation: Evaluation) -> str:
    """One predictor beside the trivial gates, as it is printed and written into cards."""
    lines = [
        f"Held-out sources with decided copies: {evaluation.sources}; copies: {evaluation.useful} "
        f"useful, {evaluation.non_useful} non-useful ({evaluation.undecided} undecided ones have "
        "no label and are left out).",
        "",
        "| gate | balanced accuracy | AUROC | re-saved at quality 95 |",
        "|---|---|---|---|",
    ]
    for gate in evaluation.gates:
        accuracy, auroc = gate.balanced_accuracy, gate.auroc
        lines.append(
            f"| {gate.name} | {accuracy.percent} | {number(auroc)} "
            f"| {_resaved(gate.resaved_balanced_accuracy)} |"
        )
    lines += ["", *_sets(evaluation), *_own_kinds(evaluation), error_sentence(evaluation)]
    lines += [
        "",
        f"Calibration error (ECE, {ECE_BINS} bins): {evaluation.ece_balanced:.3f} with the classes "
        f"weighed equally, {evaluation.ece:.3f} as they come.",
    ]
    return "\n".join(lines)


def error_sentence(evaluation: Evaluation) -> str:
    """The predictor against the better trivial gate, in words."""
    ratio, gate = evaluation.against.error_ratio, evaluation.against.gate
    if not math.isfinite(ratio.value):
        return f"{gate} makes no error on these copies; there is nothing to compare with."
    if ratio.high < 1:
        meaning = "the predictor errs less"
    elif ratio.low > 1:
        meaning = "the predictor errs more"
    else:
        meaning = "these copies do not tell which errs less"
    return (
        f"The predictor's error (1 - balanced accuracy) is {number(ratio, 2)} times that of the "
        f"better trivial gate, {gate}: {meaning}."
    )


def rows_table(rows: Sequence[Row], task: str) -> list[str]:
    """Table I or II: every predictor of a task, each with the trivial gates on the same copies."""
    cells = []
    for row in rows:
        together = len(row.networks) != 1
        paper = (PAPER_TOGETHER if together else PAPER_SINGLE)[task]
        result = row.evaluation
        for place, gate in enumerate(result.gates):
            own = place == 0
            cells.append([
                f"**{row.predictor}** ({len(row.networks)} networks)" if own else gate.name,
                gate.balanced_accuracy.percent,
                number(gate.auroc),
                f"{result.ece_balanced:.3f} ({result.ece:.3f})" if own else "",
                _resaved(gate.resaved_balanced_accuracy),
                number(result.against.error_ratio, 2) if own else "",
                paper if own else "",
            ])  # fmt: skip
    columns = (
        "predictor, then gates on the same copies", "balanced accuracy", "AUROC",
        "ECE balanced (raw)", "re-saved at quality 95", "error ratio to better gate",
        "paper's accuracy",
    )  # fmt: skip
    return markdown(columns, cells)


def crossings_table(crossings: Sequence[Crossing]) -> list[str]:
    """Every predictor on every table; losses in percentage points."""
    return markdown(
        ("labels", "predictor", "balanced accuracy", "trained for these", "lost, points"),
        [
            [
                f"{each.table} ({each.task})",
                each.predictor,
                each.balanced_accuracy.percent,
                each.trained,
                "" if each.loss is None else points(each.loss),
            ]
            for each in crossings
        ],
    )


def passed_table(classifiers: Sequence[ClassifierResult]) -> list[str]:
    """Figure 2(a): top-1 accuracy on all copies and on those that pass."""
    cells = []
    for result in classifiers:
        cells.append([_named(result), "everything", "", "100.0%", result.top1.percent, ""])
        cells += [
            ["", each.predictor, f"{each.threshold:.3f}", each.share.percent, each.top1.percent,
             points(each.rise)]
            for each in result.passed
        ]  # fmt: skip
    columns = ("network", "what passes", "from utility", "share passed", "top-1", "rise, points")
    return markdown(columns, cells)


def passed_rivals_table(classifiers: Sequence[ClassifierResult]) -> list[str]:
    """What trivial gates give that let as many copies pass."""
    return markdown(
        ("network", "predictor", "from utility", "gate at the same share", "its top-1",
         "predictor ahead, points"),
        [
            [result.network, each.predictor, f"{each.threshold:.3f}", rival.gate,
             rival.value.percent, points(rival.ahead)]
            for result in classifiers
            for each in result.passed
            for rival in each.rivals
        ],
    )  # fmt: skip


def areas_table(classifiers: Sequence[ClassifierResult]) -> list[str]:
    """Areas under the error-versus-discard curves."""
    return markdown(
        ("network", "discarded by", "area (mean error rate)", "gain: 0 random, 1 oracle"),
        [
            [
                result.network,
                area.gate,
                area.area.percent,
                "" if area.gate in (RANDOM, ORACLE) else number(area.gain, 2),
            ]
            for result in classifiers
            for area in result.areas
        ],
    )


def training_table(
    results: Sequence[ClassifierResult] | Sequence[DetectorResult], measure: str
) -> list[str]:
    """Table III or IV: accuracies or mAPs behind predictors by what they were trained on."""
    cells = []
    for result in results:
        if isinstance(result, ClassifierResult):
            behind = {
                each.predictor: (each.trained_on, each.top1.percent)
                for each in reversed(result.passed)  # the first threshold, 1/2, stays
            }
            told = points(result.by_training) if result.by_training else "-"
        else:
            behind = {
                each.predictor: (each.trained_on, number(each.map)) for each in result.replaced
            }
            told = signed(result.by_training) if result.by_training else "-"
        cells.append([
            _named(result),
            *(
                "; ".join(f"{name} {value}" for name, (on, value) in sorted(behind.items())
                          if on == task) or "-"
                for task in ("classification", "detection")
            ),
            told,
        ])  # fmt: skip
    return markdown(
        ("network", f"{measure}, classification-trained", f"{measure}, detection-trained",
         "difference of the first ones"),
        cells,
    )  # fmt: skip


def replaced_table(detectors: Sequence[DetectorResult]) -> list[str]:
    """Figure 2(b): mAP as it is and with useless copies replaced by pristine images."""
    cells = []
    for result in detectors:
        cells.append(
            [_named(result), "nothing", "0.0%", number(result.map), number(result.ap50), ""]
        )
        cells += [
            ["", each.predictor, each.share.percent, number(each.map), number(each.ap50),
             signed(each.rise)]
            for each in result.replaced
        ]  # fmt: skip
        cells.append(["", "everything", "100.0%", f"{result.pristine_map:.3f}", "", ""])
    columns = ("network", "what is replaced", "share replaced", "mAP", "AP50", "rise in mAP")
    return markdown(columns, cells)


def replaced_rivals_table(detectors: Sequence[DetectorResult]) -> list[str]:
    """What trivial gates give that have as many copies replaced."""
    return markdown(
        ("network", "predictor", "gate at the same share", "its mAP", "predictor ahead"),
        [
            [result.network, each.predictor, rival.gate, number(rival.value), signed(rival.ahead)]
            for result in detectors
            for each in result.replaced
            for rival in each.rivals
        ],
    )


def encodings_table(encodings: Encodings) -> list[str]:
    """Every gate on every kind of degradation."""
    return kinds_table(encodings.gates)


def kinds_table(gates: Mapping[str, Mapping[str, KindResult]]) -> list[str]:
    """Gates by kind of degradation; where a class is missing, the other one's recall."""
    first = next(iter(gates.values()))
    return markdown(
        ("degradation", "copies", "gate", "balanced accuracy", "AUROC"),
        [
            [kind, f"{its.useful} useful, {its.non_useful} non-useful", gate, _accuracy(its),
             "-" if its.auroc is None else f"{its.auroc:.3f}"]
            for kind in first
            for gate, its in ((name, found[kind]) for name, found in gates.items())
        ],
    )  # fmt: skip


def sets_table(evaluation: Evaluation) -> list[str]:
    """Every gate on every source set that holds both classes."""
    return _sets(evaluation)


def _sets(evaluation: Evaluation) -> list[str]:
    sets = evaluation.gates[0].by_set
    if len(sets) < 2:
        return []
    lines = [
        "| source set | copies | gate | balanced accuracy | AUROC |",
        "|---|---|---|---|---|",
    ]
    for name in sets:
        for gate in evaluation.gates:
            part = gate.by_set[name]
            copies = f"{part.useful} useful, {part.non_useful} non-useful"
            lines.append(
                f"| {name} | {copies} | {gate.name} | {part.balanced_accuracy:.1%} | "
                f"{part.auroc:.3f} |"
            )
    return [*lines, ""]


def _own_kinds(evaluation: Evaluation) -> list[str]:
    gates = {gate.name: gate.by_kind for gate in evaluation.gates}
    return kinds_table(gates) if len(evaluation.gates[0].by_kind) > 1 else []


def _accuracy(kind: KindResult) -> str:
    if kind.balanced_accuracy is not None:
        return f"{kind.balanced_accuracy:.1%}"
    if kind.useful_recall is not None:
        return f"recall of useful {kind.useful_recall:.1%}"
    return f"recall of non-useful {kind.non_useful_recall:.1%}"


def _resaved(accuracy: float | None) -> str:
    return "not measured" if accuracy is None else f"{accuracy:.1%}"


def _named(result: ClassifierResult | DetectorResult) -> str:
    return f"{result.network} (has a vote)" if result.voted else result.network
