"""Unseen classifiers behind a predictor (section V.B, Fig. 2a, Table III): their top-1 accuracy on
what passes, beside what a trivial gate gives that lets as many copies pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from utility_gate.evaluation.gates import PREDICTOR_THRESHOLD, top_share
from utility_gate.evaluation.resample import Resamples, difference, interval, resample, share
from utility_gate.evaluation.results import Area, ClassifierResult, Curve, Passed, Rival
from utility_gate.evaluation.scores import Flags, Floats
from utility_gate.evaluation.unseen import Observed
from utility_gate.statistics import Interval, to_interval
from utility_gate.value.arithmetic import GRID, LIMIT, error_curve, gain, partial_area

AREA_DRAWS = 200
"""Resampled sets of sources for the intervals of areas: each takes every curve anew."""

RANDOM, ORACLE = "random", "oracle"
"""A gate that discards blindly, and one that discards errors first."""


@dataclass(frozen=True, slots=True, eq=False)
class Front:
    """A predictor in front of networks: its utilities (N,) of the copies, and the utility from
    which its card calls images useful."""

    name: str
    trained_on: str
    utilities: Floats
    useful_from: float

    @property
    def passes(self) -> Flags:
        """What passes at 1/2, (N,)."""
        return self.utilities >= PREDICTOR_THRESHOLD


def measure_classifiers(
    observed: Observed,
    fronts: Sequence[Front],
    rivals: Mapping[str, Floats],
    voters: Sequence[str] = (),
) -> tuple[ClassifierResult, ...]:
    """Every network of a table behind every predictor; `rivals` are the trivial gates' scores (N,)
    of the copies by name, `voters` networks that have a vote somewhere."""
    resamples = resample(observed.sources)
    results = []
    for network in observed.networks:
        right = observed.right(network)
        areas, curves = _discard(right, fronts, rivals, resamples.first(AREA_DRAWS))
        results.append(
            ClassifierResult(
                network=network,
                voted=network in voters,
                copies=len(right),
                sources=resamples.sources,
                top1=interval(share(resamples, right, np.ones(len(right)))),
                passed=tuple(
                    _passed(front, threshold, right, rivals, resamples)
                    for front in fronts
                    for threshold in (PREDICTOR_THRESHOLD, front.useful_from)
                ),
                by_training=_by_training(fronts, right, resamples),
                areas=areas,
                curves=curves,
            )
        )
    return tuple(results)


def first_trained_on(fronts: Sequence[Front], task: str) -> Front | None:
    """The first predictor that was trained on labels of a task."""
    return next((front for front in fronts if front.trained_on == task), None)


def _passed(
    front: Front,
    threshold: float,
    right: Flags,
    rivals: Mapping[str, Floats],
    resamples: Resamples,
) -> Passed:
    passes = front.utilities >= threshold
    everything = np.ones(len(right), np.bool_)
    behind = share(resamples, right & passes, passes)
    beside = []
    for name, scores in rivals.items():
        its = top_share(scores, int(passes.sum()))
        there = share(resamples, right & its, its)
        beside.append(Rival(name, interval(there), difference(behind, there)))
    return Passed(
        predictor=front.name,
        trained_on=front.trained_on,
        threshold=threshold,
        share=interval(share(resamples, passes, everything)),
        top1=interval(behind),
        rise=difference(behind, share(resamples, right, everything)),
        rivals=tuple(beside),
    )


def _by_training(fronts: Sequence[Front], right: Flags, resamples: Resamples) -> Interval | None:
    """Table III: the accuracy behind the first classification-trained predictor minus that behind
    the first detection-trained one."""
    one = first_trained_on(fronts, "classification")
    other = first_trained_on(fronts, "detection")
    if one is None or other is None:
        return None
    behind = [share(resamples, right & each.passes, each.passes) for each in (one, other)]
    return difference(behind[0], behind[1])


def _discard(
    right: Flags, fronts: Sequence[Front], rivals: Mapping[str, Floats], resamples: Resamples
) -> tuple[tuple[Area, ...], tuple[Curve, ...]]:
    """Areas under and points of the error-versus-discard curves."""
    gates = {
        **{front.name: front.utilities for front in fronts},
        **rivals,
        RANDOM: np.zeros(len(right)),
        ORACLE: right.astype(np.float64),
    }
    discarded = np.linspace(0, LIMIT, GRID + 1)
    # Ranks sort faster than scores, and every set sorts them anew.
    ranks = {
        name: np.unique(scores, return_inverse=True)[1].astype(np.float64)
        for name, scores in gates.items()
    }
    curves = {name: error_curve(~right, its, discarded) for name, its in ranks.items()}
    areas = {name: partial_area(curve, discarded) for name, curve in curves.items()}
    drawn: dict[str, list[float]] = {name: [] for name in gates}
    for rows in resamples.rows():
        for weights in rows:
            for name, its in ranks.items():
                curve = error_curve(~right, its, discarded, weights)
                drawn[name].append(partial_area(curve, discarded))
    bounds = list(zip(drawn[RANDOM], drawn[ORACLE], strict=True))
    return (
        tuple(
            Area(
                gate=name,
                area=to_interval(areas[name], drawn[name]),
                gain=to_interval(
                    gain(areas[name], areas[RANDOM], areas[ORACLE]),
                    [
                        gain(area, random, oracle)
                        for area, (random, oracle) in zip(drawn[name], bounds, strict=True)
                    ],
                ),
            )
            for name in gates
        ),
        tuple(
            Curve(name, tuple(map(float, discarded)), tuple(map(float, curve)))
            for name, curve in curves.items()
        ),
    )
