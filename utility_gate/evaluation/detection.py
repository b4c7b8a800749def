"""Unseen detectors behind a predictor (section V.B, Fig. 2b, Table IV): COCO's mAP when copies of
no utility are replaced by their pristine images, beside what a trivial gate gives that has as many
replaced."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from utility_gate.errors import TableError
from utility_gate.evaluation.classification import RANDOM, Front, first_trained_on
from utility_gate.evaluation.gates import top_share
from utility_gate.evaluation.precision import Boxes, Matches, average_precision, match
from utility_gate.evaluation.resample import Resamples, Value, difference, interval, resample, share
from utility_gate.evaluation.results import DetectorResult, Replaced, Rival
from utility_gate.evaluation.scores import Flags, Floats
from utility_gate.evaluation.unseen import Observed
from utility_gate.statistics import Interval

MAP_DRAWS = 100
"""Resampled sets of sources for the intervals of mAP: each is a whole evaluation."""


@dataclass(frozen=True, slots=True)
class Objects:
    """What there is in one source: boxes xyxy in its pixels, and the names of their classes."""

    boxes: tuple[tuple[float, float, float, float], ...]
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ObjectTruth:
    """What there is in every source, by its path; and for each detector the names of the classes
    that it numbers."""

    sources: Mapping[str, Objects]
    classes: Mapping[str, Mapping[int, str]]


def measure_detectors(
    observed: Observed,
    truth: ObjectTruth,
    fronts: Sequence[Front],
    rivals: Mapping[str, Floats],
    voters: Sequence[str] = (),
) -> tuple[DetectorResult, ...]:
    """Every network of a table behind every predictor; arguments as for
    `classification.measure_classifiers`. A rival that replaces at random is added.

    Raises:
        TableError: if the truth lacks a source or a class, or a pristine image was not seen.
    """
    resamples = resample(observed.sources, draws=MAP_DRAWS)
    beside = {**rivals, RANDOM: np.zeros(len(observed.copies))}
    return tuple(
        _measure(network, observed, truth, fronts, beside, resamples, voted=network in voters)
        for network in observed.networks
    )


def _measure(
    network: str,
    observed: Observed,
    truth: ObjectTruth,
    fronts: Sequence[Front],
    rivals: Mapping[str, Floats],
    resamples: Resamples,
    *,
    voted: bool,
) -> DetectorResult:
    detector = _Detector(network, observed, truth, resamples)
    count = len(observed.copies)
    nothing, everything = np.zeros(count, np.bool_), np.ones(count, np.bool_)
    as_is = detector.precision(nothing)
    after = {front.name: detector.precision(~front.passes) for front in fronts}
    replaced = []
    for front in fronts:
        beside = []
        for name, scores in rivals.items():
            there = detector.precision(~top_share(scores, int(front.passes.sum())))
            beside.append(
                Rival(name, interval(there[0]), difference(after[front.name][0], there[0]))
            )
        value, half = after[front.name]
        replaced.append(
            Replaced(
                predictor=front.name,
                trained_on=front.trained_on,
                share=interval(share(resamples, ~front.passes, everything)),
                map=interval(value),
                ap50=interval(half),
                rise=difference(value, as_is[0]),
                rivals=tuple(beside),
            )
        )
    return DetectorResult(
        network=network,
        voted=voted,
        copies=count,
        sources=resamples.sources,
        map=interval(as_is[0]),
        ap50=interval(as_is[1]),
        pristine_map=detector.precision(everything, intervals=False)[0][0],
        replaced=tuple(replaced),
        by_training=_by_training(fronts, {name: its[0] for name, its in after.items()}),
    )


def _by_training(fronts: Sequence[Front], after: Mapping[str, Value]) -> Interval | None:
    """Table IV: mAP behind the first detection-trained predictor minus that behind the first
    classification-trained one."""
    one = first_trained_on(fronts, "detection")
    other = first_trained_on(fronts, "classification")
    return None if one is None or other is None else difference(after[one.name], after[other.name])


class _Detector:
    """A network's boxes on copies and pristine images, matched once.

    Images are numbered: copies first, in their order, then the pristine images of the sources.
    """

    def __init__(
        self, network: str, observed: Observed, truth: ObjectTruth, resamples: Resamples
    ) -> None:
        if network not in truth.classes:
            raise TableError(f"expected how {network} numbers its classes in the table, found none")
        self._resamples = resamples
        names = list(dict.fromkeys(sorted(observed.sources)))
        numbers = {name: number for number, name in truth.classes[network].items()}
        objects = [_true_boxes(network, source, truth, numbers) for source in names]
        pristine = observed.pristine[network]
        absent = next((name for name in names if name not in pristine), None)
        if absent is not None:
            raise TableError(
                f"{network} did not see the pristine {absent}, which replaces useless copies"
            )
        owner = resamples.owner
        images = [
            (_found_boxes(row), objects[owner[number]])
            for number, row in enumerate(observed.networks[network])
        ]
        images += [
            (_found_boxes(pristine[name]), its) for name, its in zip(names, objects, strict=True)
        ]
        self._matches: Matches = match(images)
        # Objects of each class by source; each copy, replaced or not, is an image with them all.
        self._objects = np.array(
            [[(its.classes == kind).sum() for kind in self._matches.classes] for its in objects],
            np.float64,
        ).reshape(len(names), -1)
        self._copies = np.bincount(owner, minlength=len(names)).astype(np.float64)

    def precision(self, replaced: Flags, *, intervals: bool = True) -> tuple[Value, Value]:
        """mAP and AP50 with these copies (N,) replaced by their pristine images, and the same of
        every resampled set."""
        whole = self._of(np.ones(self._resamples.sources), replaced)
        drawn = [self._of(times, replaced) for times in self._resamples.weights if intervals]
        sets = np.array(drawn).reshape(-1, len(whole))
        return (float(whole.mean()), sets.mean(axis=1)), (float(whole[0]), sets[:, 0])

    def _of(self, times: Floats, replaced: Flags) -> Floats:
        """Average precisions (10,) with each source counted so many times, (S,)."""
        owner = self._resamples.owner
        own = times[owner] * ~replaced
        instead = times * np.bincount(owner, replaced, len(times))
        objects = (times * self._copies) @ self._objects
        return average_precision(self._matches, np.concatenate([own, instead]), objects)


def _true_boxes(network: str, source: str, truth: ObjectTruth, numbers: Mapping[str, int]) -> Boxes:
    if source not in truth.sources:
        raise TableError(f"expected the objects of {source} in the ground truth, found none")
    there = truth.sources[source]
    strange = next((name for name in there.names if name not in numbers), None)
    if strange is not None:
        raise TableError(f"{network}: expected to know every class of the truth, lacks {strange!r}")
    return Boxes(
        np.array(there.boxes, np.float64).reshape(-1, 4),
        np.array([numbers[name] for name in there.names], np.int64),
        np.empty(0),
    )


def _found_boxes(row: Mapping[str, Any]) -> Boxes:
    return Boxes(
        np.array(row["boxes"], np.float64).reshape(-1, 4),
        np.array(row["classes"], np.int64),
        np.array(row["scores"], np.float64),
    )
