"""What a gate is worth, as Markdown and as JSON."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from typing import Any

from utility_gate.statistics import Interval
from utility_gate.value.arithmetic import LIMIT, Worth


@dataclass(frozen=True, slots=True)
class Setting:
    """What was measured on what: names for people, the machine's cores, whether images between the
    gate's thresholds "pass" or "stop", and what `time` is ("CPU time" or "time")."""

    gate: str
    pipeline: str
    review: str
    cores: int
    data: str
    qualities: tuple[int, ...]
    time: str = "time"


def to_json(worth: Worth, setting: Setting) -> str:
    """Everything, the curves too; null where there is no number."""
    table = {"setting": dataclasses.asdict(setting), **dataclasses.asdict(worth)}
    return json.dumps(_finite(table), indent=2, allow_nan=False) + "\n"


def to_markdown(worth: Worth, setting: Setting) -> str:
    """The tables and what to read from them."""
    return "\n".join([
        *_heading(worth, setting),
        *_accuracies(worth),
        *_steps(worth),
        *_areas(worth),
        *_cost(worth, setting),
        "",
    ])  # fmt: skip


def _heading(worth: Worth, setting: Setting) -> list[str]:
    ladder = ", ".join(map(str, setting.qualities))
    review = "stopped too" if setting.review == "stop" else "let through"
    return [
        f"# {setting.gate} before {setting.pipeline}",
        "",
        f"{worth.copies} copies of {worth.sources} photographs ({setting.data}) at JPEG qualities "
        f"{ladder}; images for review are {review}. In brackets 95 % intervals, by resampling "
        "photographs.",
        "",
    ]


def _accuracies(worth: Worth) -> list[str]:
    rows = {
        "accuracy on all copies": worth.accuracy.percent,
        "accuracy on those that pass the gate": worth.accuracy_passed.percent,
        "rise": _points(worth.rise),
        "copies that pass": worth.passed.percent,
        "of the pipeline's errors, stopped": worth.errors_stopped.percent,
        "of its right decisions, stopped": worth.correct_stopped.percent,
    }
    table = [f"| {name} | {value} |" for name, value in rows.items()]
    return ["| over all qualities | |", "|---|---|", *table, ""]


def _steps(worth: Worth) -> list[str]:
    table = [
        f"| {step.quality} | {step.copies} | {step.accuracy.percent} | {step.passed.percent} | "
        f"{step.accuracy_passed.percent} |"
        for step in worth.steps
    ]
    return [
        "| JPEG quality | copies | accuracy without the gate | pass | accuracy on what passes |",
        "|---|---|---|---|---|",
        *table,
        "",
    ]


def _areas(worth: Worth) -> list[str]:
    stopped = 1 - worth.passed.value
    table = [
        f"| {each.gate} | {each.area.percent} | {_number(each.gain)} | "
        f"{each.error_at_stopped.percent} |"
        for each in worth.areas
    ]
    return [
        f"Error rate against the share discarded: the area up to {LIMIT:.0%}, as mean error rate, "
        "and where it lies between random (0) and an oracle (1).",
        "",
        f"| discarded by | area | gain | errors left at {stopped:.0%} discarded |",
        "|---|---|---|---|",
        *table,
        "",
        f"The JPEG quality's area minus the utility's: {_points(worth.ahead_of_quality)}; above 0 "
        "the utility ranks better.",
        "",
    ]


def _cost(worth: Worth, setting: Setting) -> list[str]:
    cost = worth.cost
    return [
        f"| {setting.time} of one thread, on a machine of {setting.cores} cores | |",
        "|---|---|",
        f"| gate, median | {cost.gate_ms:.1f} ms |",
        f"| pipeline, median | {cost.pipeline_ms:.1f} ms |",
        f"| break-even: share of stopped images that pays for the gate | {cost.break_even:.1%} |",
        f"| pipeline time saved on these copies | {cost.saved.percent} |",
        f"| a right decision without the gate | {_milliseconds(cost.per_correct_without)} |",
        f"| a right decision with it | {_milliseconds(cost.per_correct_with)} |",
        f"| saved of that | {cost.per_correct_saved.percent} |",
    ]


def _points(interval: Interval) -> str:
    if not math.isfinite(interval.value):
        return "-"
    value, low, high = (100 * each for each in (interval.value, interval.low, interval.high))
    return f"{value:.1f} points ({low:.1f} to {high:.1f})"


def _number(interval: Interval) -> str:
    if not math.isfinite(interval.value):
        return "-"
    if interval.low == interval.high == interval.value and interval.value in (0.0, 1.0):
        return f"{interval.value:.0f}"
    return f"{interval.value:.2f} ({interval.low:.2f} to {interval.high:.2f})"


def _milliseconds(interval: Interval) -> str:
    if not math.isfinite(interval.value):
        return "-"
    return f"{interval.value:.1f} ms ({interval.low:.1f} to {interval.high:.1f})"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
