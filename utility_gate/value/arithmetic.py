"""What a gate is worth, from what gate and pipeline said of the same copies: arrays in, values out.

The error-versus-discard curve (EDC; Schlett et al., "Considerations on the Evaluation of Biometric
Quality Assessment Algorithms", 2023) is the share of errors among the copies that are left when
those of the lowest scores are discarded, by the share discarded. Its partial area (pAUC) is taken
here from 0 to `LIMIT` discarded and divided by `LIMIT`: the mean error rate over that range, lower
is better. Between two copies the curve is linear in the number of errors discarded; copies of one
score are discarded in random order, and the curve is what that gives on average. A gate that
discards at random has the error rate itself as its area, an oracle that discards errors first the
lowest area there is; `gain` says where between the two an area lies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from utility_gate.statistics import Interval, to_interval

Floats = npt.NDArray[np.float64]

LIMIT = 0.5
"""Up to which share discarded areas are taken: larger limits rank gates more stably (ibid.)."""

DRAWS = 1000
"""Resampled sets of sources for an interval."""

GRID = 200
"""Steps of the curves, from nothing discarded to `LIMIT`, both included."""

UTILITY, QUALITY, RANDOM, ORACLE = "utility", "JPEG quality", "random", "oracle"
GATES = (UTILITY, QUALITY, RANDOM, ORACLE)


@dataclass(frozen=True, slots=True, eq=False)
class Trials:
    """N degraded copies as gate and pipeline saw them, all arrays (N,).

    `sources` numbers the photograph that a copy was made of (copies of one are resampled
    together), `qualities` is the JPEG quality it was compressed at, `file_qualities` what its file
    says; `correct` whether the pipeline decided right, `passed` whether the gate let it through,
    `utilities` what the gate gave it; `gate_ms` and `pipeline_ms` what each took.

    Raises:
        ValueError: if there are none, lengths differ or a number is not finite.
    """

    sources: npt.NDArray[np.int64]
    qualities: npt.NDArray[np.int64]
    file_qualities: Floats
    correct: npt.NDArray[np.bool_]
    passed: npt.NDArray[np.bool_]
    utilities: Floats
    gate_ms: Floats
    pipeline_ms: Floats

    def __post_init__(self) -> None:
        shapes = {np.shape(getattr(self, field.name)) for field in fields(self)}
        if len(shapes) != 1 or len(shape := next(iter(shapes))) != 1 or shape[0] < 1:
            raise ValueError(f"expected arrays of one length, at least 1, got shapes {shapes}")
        for name in ("file_qualities", "utilities", "gate_ms", "pipeline_ms"):
            if not np.isfinite(getattr(self, name)).all():
                raise ValueError(f"expected finite {name}, got others")


@dataclass(frozen=True, slots=True)
class Step:
    """One quality of the ladder: the pipeline's accuracy on all copies, the share that passes the
    gate, and the accuracy on those."""

    quality: int
    copies: int
    accuracy: Interval
    passed: Interval
    accuracy_passed: Interval


@dataclass(frozen=True, slots=True)
class Area:
    """One gate's partial area, its gain (0: random, 1: oracle), and the error rate among what is
    left when it discards as many copies as our gate stopped."""

    gate: str
    area: Interval
    gain: Interval
    error_at_stopped: Interval


@dataclass(frozen=True, slots=True)
class Cost:
    """Medians in milliseconds, and what follows. `break_even` is the share of stopped copies from
    which on the gate saves time; `saved` the share of time that it saves on these copies (negative:
    it costs); `per_correct` are milliseconds for a right decision, without the gate and with it,
    and `per_correct_saved` the share saved of that."""

    gate_ms: float
    pipeline_ms: float
    break_even: float
    saved: Interval
    per_correct_without: Interval
    per_correct_with: Interval
    per_correct_saved: Interval


@dataclass(frozen=True, slots=True)
class Worth:
    """All of it. `rise` is the accuracy on what passes minus that on all; `errors_stopped` and
    `correct_stopped` are shares of the pipeline's wrong and right decisions that the gate stops;
    `curves` has the EDC of each gate on `discarded`, shares from 0 to `LIMIT`."""

    sources: int
    copies: int
    accuracy: Interval
    passed: Interval
    accuracy_passed: Interval
    rise: Interval
    errors_stopped: Interval
    correct_stopped: Interval
    steps: tuple[Step, ...]
    areas: tuple[Area, ...]
    ahead_of_quality: Interval
    cost: Cost
    discarded: tuple[float, ...]
    curves: dict[str, tuple[float, ...]]


def weigh(trials: Trials, *, draws: int = DRAWS, seed: int = 0) -> Worth:
    """What the gate was worth in these trials; intervals by resampling sources `draws` times."""
    statistics = _Statistics(trials)
    _, owner = np.unique(trials.sources, return_inverse=True)
    count = int(owner.max()) + 1
    values = statistics(np.ones(len(owner)))
    random = np.random.default_rng(seed)
    resampled = np.array([
        list(statistics(_resample(random, count)[owner]).values()) for _ in range(draws)
    ])  # fmt: skip

    bounds = {
        name: to_interval(value, column)
        for (name, value), column in zip(values.items(), resampled.T, strict=True)
    }
    gate_ms, pipeline_ms = float(np.median(trials.gate_ms)), float(np.median(trials.pipeline_ms))
    return Worth(
        sources=count,
        copies=len(owner),
        accuracy=bounds["accuracy"],
        passed=bounds["passed"],
        accuracy_passed=bounds["accuracy_passed"],
        rise=bounds["rise"],
        errors_stopped=bounds["errors_stopped"],
        correct_stopped=bounds["correct_stopped"],
        steps=tuple(
            Step(
                int(quality),
                int((trials.qualities == quality).sum()),
                bounds[f"accuracy {quality}"],
                bounds[f"passed {quality}"],
                bounds[f"accuracy_passed {quality}"],
            )
            for quality in statistics.qualities
        ),
        areas=tuple(
            Area(gate, bounds[f"area {gate}"], bounds[f"gain {gate}"], bounds[f"stopped {gate}"])
            for gate in GATES
        ),
        ahead_of_quality=bounds["ahead"],
        cost=Cost(
            gate_ms,
            pipeline_ms,
            gate_ms / pipeline_ms,
            bounds["saved"],
            bounds["per_correct_without"],
            bounds["per_correct_with"],
            bounds["per_correct_saved"],
        ),
        discarded=tuple(float(share) for share in np.linspace(0, LIMIT, GRID + 1)),
        curves={gate: tuple(map(float, statistics.curves[gate])) for gate in GATES},
    )


def error_curve(
    wrong: npt.NDArray[np.bool_],
    scores: Floats,
    discarded: Floats,
    weights: Floats | None = None,
) -> Floats:
    """The EDC: the error rate among what is left when the shares `discarded` (each below 1) of the
    copies, lowest scores first, are taken away. `weights` (N,) counts copies several times."""
    return _Ranking(wrong, scores).curve(
        discarded, np.ones(len(wrong)) if weights is None else weights
    )


def partial_area(curve: Floats, discarded: Floats) -> float:
    """The mean of a curve over the evenly spaced shares `discarded`, by the trapezoid rule."""
    return float(np.trapezoid(curve, discarded) / (discarded[-1] - discarded[0]))


def gain(area: float, random: float, oracle: float) -> float:
    """0 for the area of a random gate, 1 for an oracle's; NaN if they are the same: without errors
    there is nothing to gain."""
    return (random - area) / (random - oracle) if random - oracle > 1e-12 else float("nan")


class _Ranking:
    """Copies in the order in which one gate discards them; sorted once, weighed often."""

    def __init__(self, wrong: npt.NDArray[np.bool_], scores: Floats) -> None:
        self._wrong = wrong.astype(np.float64)
        _, self._group = np.unique(scores, return_inverse=True)
        self._groups = int(self._group.max()) + 1

    def curve(self, discarded: Floats, weights: Floats) -> Floats:
        copies = np.bincount(self._group, weights, self._groups)
        errors = np.bincount(self._group, weights * self._wrong, self._groups)
        at = np.concatenate([[0.0], np.cumsum(copies)])
        lost = np.concatenate([[0.0], np.cumsum(errors)])
        total = at[-1]
        left = lost[-1] - np.interp(discarded * total, at, lost)
        result: Floats = np.maximum(left, 0.0) / (total * (1 - discarded))
        return result


class _Statistics:
    """Every number of a `Worth`, of copies weighed anew: name to value."""

    def __init__(self, trials: Trials) -> None:
        self._trials = trials
        self.qualities = [int(q) for q in np.unique(trials.qualities)[::-1]]
        wrong = ~trials.correct
        scores = {
            UTILITY: trials.utilities,
            QUALITY: trials.file_qualities,
            RANDOM: np.zeros(len(wrong)),
            ORACLE: trials.correct.astype(np.float64),
        }
        self._rankings = {gate: _Ranking(wrong, scores[gate]) for gate in GATES}
        self._discarded = np.linspace(0, LIMIT, GRID + 1)
        self._ratio = float(np.median(trials.gate_ms) / np.median(trials.pipeline_ms))
        self._pipeline_ms = float(np.median(trials.pipeline_ms))
        self.curves: Mapping[str, Floats] = {}
        """Of the copies as they are, once asked for."""

    def __call__(self, weights: Floats) -> dict[str, float]:
        found = self._accuracies("", weights)
        found |= self._costs(found["accuracy"], found["passed"], found["accuracy_passed"])
        for quality in self.qualities:
            rows = self._trials.qualities == quality
            its = self._accuracies(f" {quality}", weights * rows)
            found |= {name: its[name] for name in its if "stopped" not in name}
        curves = {
            gate: ranking.curve(self._discarded, weights)
            for gate, ranking in self._rankings.items()
        }
        self.curves = self.curves or curves
        areas = {gate: partial_area(curves[gate], self._discarded) for gate in GATES}
        stopped = np.array([min(1 - found["passed"], 1 - 1e-9)])
        for gate in GATES:
            found[f"area {gate}"] = areas[gate]
            found[f"gain {gate}"] = gain(areas[gate], areas[RANDOM], areas[ORACLE])
            found[f"stopped {gate}"] = float(self._rankings[gate].curve(stopped, weights)[0])
        found["ahead"] = areas[QUALITY] - areas[UTILITY]
        return found

    def _accuracies(self, which: str, weights: Floats) -> dict[str, float]:
        correct, passed = self._trials.correct, self._trials.passed
        accuracy, accuracy_passed = _share(weights, correct), _share(weights * passed, correct)
        return {
            f"accuracy{which}": accuracy,
            f"passed{which}": _share(weights, passed),
            f"accuracy_passed{which}": accuracy_passed,
            f"rise{which}": accuracy_passed - accuracy,
            f"errors_stopped{which}": _share(weights * ~correct, ~passed),
            f"correct_stopped{which}": _share(weights * correct, ~passed),
        }

    def _costs(self, accuracy: float, passed: float, accuracy_passed: float) -> dict[str, float]:
        """Per image a pipeline alone costs 1, behind a gate ratio + passed, in its own time."""
        behind = self._ratio + passed
        without = _divide(1.0, accuracy)
        gated = _divide(behind, passed * accuracy_passed)
        return {
            "saved": 1 - behind,
            "per_correct_without": self._pipeline_ms * without,
            "per_correct_with": self._pipeline_ms * gated,
            "per_correct_saved": 1 - gated / without,
        }


def _share(weights: Floats, of: npt.NDArray[np.bool_]) -> float:
    """The weight of those in `of` among all."""
    return _divide(float(weights @ of), float(weights.sum()))


def _divide(one: float, other: float) -> float:
    return one / other if other > 0 else float("nan")


def _resample(random: np.random.Generator, count: int) -> Floats:
    """How often each of `count` sources is drawn in as many draws."""
    drawn = random.integers(0, count, count)
    return np.bincount(drawn, minlength=count).astype(np.float64)
