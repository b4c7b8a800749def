"""Bytes to verdict: the one place where the decision is made."""

from __future__ import annotations

import time
from collections.abc import Mapping

from server.metrics import GateMetrics
from utility_gate import __version__
from utility_gate.errors import ConfigError, InputError, UnknownTaskError
from utility_gate.images import FORMATS, DecodeLimits
from utility_gate.measure import MeasureLimits, measure
from utility_gate.predictor import UtilityPredictor
from utility_gate.types import (
    Decision,
    GateInfo,
    ImageInfo,
    Reason,
    ReasonKind,
    TaskInfo,
    Thresholds,
    Verdict,
)


class Gate:
    """The predictors of all tasks and the limits; `assess` may be called from many threads."""

    def __init__(
        self,
        predictors: Mapping[str, UtilityPredictor],
        limits: DecodeLimits | None = None,
        measure_limits: MeasureLimits | None = None,
        metrics: GateMetrics | None = None,
    ) -> None:
        """The first of `predictors` serves the default task.

        Raises:
            ConfigError: if there is no predictor.
        """
        if not predictors:
            raise ConfigError("expected a predictor for at least one task, got none")
        self._predictors = dict(predictors)
        self._limits = limits or DecodeLimits()
        self._measure_limits = measure_limits or MeasureLimits()
        self._metrics = metrics or GateMetrics()
        for task, predictor in self._predictors.items():
            info = predictor.card.info
            self._metrics.predictor.labels(task, info.name, info.version, info.digest).set(1)

    @property
    def info(self) -> GateInfo:
        """What this gate serves."""
        return GateInfo(
            server_version=__version__,
            tasks=tuple(
                TaskInfo(task, predictor.card.thresholds, predictor.card.info)
                for task, predictor in self._predictors.items()
            ),
            max_image_bytes=self._limits.max_bytes,
            max_image_pixels=self._limits.max_pixels,
            formats=FORMATS,
        )

    def assess(self, data: bytes, task: str = "") -> Verdict:
        """Judge one encoded image for a task ("" is the default task).

        Raises:
            ImageError: if the bytes cannot be judged.
            UnknownTaskError: if no predictor serves the task.
        """
        try:
            verdict = self._assess(data, task)
        except InputError as error:
            self._metrics.rejected_inputs.labels(type(error).__name__).inc()
            raise
        self._metrics.image_bytes.observe(len(data))
        self._metrics.utility.labels(verdict.task).observe(verdict.utility)
        self._metrics.verdicts.labels(
            verdict.task, verdict.decision, verdict.predictor.version
        ).inc()
        for reason in verdict.reasons:
            self._metrics.reasons.labels(verdict.task, reason.kind).inc()
        return verdict

    def _assess(self, data: bytes, task: str) -> Verdict:
        task, predictor = self._predictor(task)
        card = predictor.card
        started = time.perf_counter()
        image = predictor.decode(data, self._limits)
        crop = predictor.crop(image)
        decoded = time.perf_counter()
        utility = predictor.judge(image, crop)
        self._metrics.decode_seconds.observe(decoded - started)
        self._metrics.infer_seconds.labels(task).observe(time.perf_counter() - decoded)
        decision = card.thresholds.decide(utility)
        measured = measure(image, crop, self._measure_limits, card.min_side)
        return Verdict(
            task=task,
            utility=utility,
            decision=decision,
            thresholds=card.thresholds,
            reasons=_low_utility(utility, decision, card.thresholds) + measured,
            predictor=card.info,
            image=ImageInfo(image.format, image.width, image.height),
        )

    def _predictor(self, task: str) -> tuple[str, UtilityPredictor]:
        name = task or next(iter(self._predictors))
        if name not in self._predictors:
            raise UnknownTaskError(
                f"expected one of the tasks {', '.join(self._predictors)}, got {task[:100]!r}"
            )
        return name, self._predictors[name]


def _low_utility(utility: float, decision: Decision, thresholds: Thresholds) -> tuple[Reason, ...]:
    """The reason that every verdict other than USEFUL has."""
    if decision is Decision.USEFUL:
        return ()
    text = f"the predicted utility is {utility:.3f}, below {thresholds.useful:.3f}"
    return (Reason(ReasonKind.LOW_UTILITY, utility, thresholds.useful, text),)
