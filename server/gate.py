"""Bytes to verdict: the one place where the decision is made."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from typing import Protocol

from server.canary import Canary
from server.metrics import GateMetrics
from serving.tracing import NO_TRACER, Tracer
from utility_gate import __version__
from utility_gate.advice import advise_on
from utility_gate.checkpoint import Card
from utility_gate.errors import ConfigError, InputError, UnknownTaskError
from utility_gate.images import FORMATS, DecodedImage, DecodeLimits, Pixels
from utility_gate.measure import MeasureLimits, measure
from utility_gate.predictor import Look
from utility_gate.suggest import Suggester
from utility_gate.types import (
    Decision,
    GateInfo,
    ImageInfo,
    Mode,
    Reason,
    ReasonKind,
    TaskInfo,
    Thresholds,
    Verdict,
)


class Predictor(Protocol):
    """What the gate needs of a predictor; see `utility_gate.predictor.UtilityPredictor`."""

    @property
    def card(self) -> Card:
        """What is known of it."""

    def decode(self, data: bytes, limits: DecodeLimits | None = None) -> DecodedImage:
        """Bytes to pixels."""

    def crop(self, image: DecodedImage) -> Pixels:
        """The square that the network sees."""

    def judge(self, image: DecodedImage, crop: Pixels) -> float:
        """The utility, 0 to 1."""


class Gate:
    """The predictors of all tasks and the limits; `assess` may be called from many threads."""

    def __init__(
        self,
        predictors: Mapping[str, Predictor],
        limits: DecodeLimits | None = None,
        measure_limits: MeasureLimits | None = None,
        metrics: GateMetrics | None = None,
        *,
        modes: Mapping[str, Mode] | None = None,
        fail_open: Collection[str] = (),
        canaries: Mapping[str, Canary] | None = None,
        tracer: Tracer = NO_TRACER,
    ) -> None:
        """The first of `predictors` serves the default task. Tasks without an entry in `modes`
        enforce; those in `fail_open` let images through when the gate is in trouble.

        Raises:
            ConfigError: if there is no predictor, or none for a task that is named.
        """
        if not predictors:
            raise ConfigError("expected a predictor for at least one task, got none")
        strangers = {*(modes or ()), *fail_open, *(canaries or ())} - set(predictors)
        if strangers:
            raise ConfigError(
                f"expected modes, fail_open and canaries of the tasks {', '.join(predictors)}, got "
                f"{', '.join(sorted(strangers))}"
            )
        self._predictors = dict(predictors)
        self._limits = limits or DecodeLimits()
        self._measure_limits = measure_limits or MeasureLimits()
        self._metrics = metrics or GateMetrics()
        self._tracer = tracer
        self._modes = dict.fromkeys(predictors, Mode.ENFORCE) | dict(modes or {})
        self._fail_open = frozenset(fail_open)
        self._canaries = dict(canaries or {})

    def publish(self) -> None:
        """Tell the metrics that these are the predictors that serve now, and no others."""
        self._metrics.predictor.clear()
        for task, predictor in self._predictors.items():
            info = predictor.card.info
            self._metrics.predictor.labels(task, info.name, info.version, info.digest).set(1)

    @property
    def info(self) -> GateInfo:
        """What this gate serves."""
        return GateInfo(
            server_version=__version__,
            tasks=tuple(
                TaskInfo(task, predictor.card.thresholds, predictor.card.info, self._modes[task])
                for task, predictor in self._predictors.items()
            ),
            max_image_bytes=self._limits.max_bytes,
            max_image_pixels=self._limits.max_pixels,
            formats=FORMATS,
        )

    def find(self, task: str) -> str:
        """The task of this name; "" is the default one.

        Raises:
            UnknownTaskError: if no predictor serves it.
        """
        name = task or next(iter(self._predictors))
        if name not in self._predictors:
            self._metrics.rejected_inputs.labels(UnknownTaskError.__name__).inc()
            raise UnknownTaskError(
                f"expected one of the tasks {', '.join(self._predictors)}, got {task[:100]!r}"
            )
        return name

    def assess(self, data: bytes, task: str = "", mode: Mode | None = None) -> Verdict:
        """Judge one encoded image for a task ("" is the default task), in `mode` in place of the
        task's if one is given.

        Raises:
            ImageError: if the bytes cannot be judged.
            UnknownTaskError: if no predictor serves the task.
        """
        task = self.find(task)
        mode = mode or self._modes[task]
        if mode is Mode.OFF:
            return self._pass(task, Mode.OFF, "the gate is off for this task")
        try:
            verdict = self._judge(data, task, mode)
        except InputError as error:
            self._metrics.rejected_inputs.labels(type(error).__name__).inc()
            raise
        self._metrics.image_bytes.observe(len(data))
        if verdict.utility is not None:
            self._metrics.utility.labels(task).observe(verdict.utility)
        for reason in verdict.reasons:
            self._metrics.reasons.labels(task, reason.kind).inc()
        return self._count(verdict)

    def mode(self, task: str) -> Mode:
        """The mode of a task, by its name."""
        return self._modes[task]

    def fails_open(self, task: str) -> bool:
        """Whether images of a task are let through when the gate is in trouble."""
        return task in self._fail_open

    def fall_back(self, task: str, note: str) -> Verdict:
        """The verdict on an image that a gate in trouble lets through unjudged; `note` says what
        the trouble is."""
        return self._pass(task, Mode.FALLBACK, note)

    def suggester(
        self, data: bytes, task: str = "", *, utility: float = 0.0, max_side: int = 0
    ) -> Suggester:
        """What finds out how far an encoded image can be compressed for a task ("" is the default
        task), whatever its mode; see `Suggester`. Its judgements are no verdicts, and in none of
        their metrics.

        Raises:
            InputError: for a utility or a side out of range.
            UnknownTaskError: if no predictor serves the task.
        """
        task = self.find(task)
        card = self._predictors[task].card
        return Suggester(
            data,
            card,
            lambda copy: self._look(copy, task),
            task=task,
            utility=utility,
            max_side=max_side,
            limits=self._limits,
            measure_limits=self._measure_limits,
        )

    def canary(self, data: bytes, verdict: Verdict) -> Canary | None:
        """Who else should look at this image, if anybody."""
        canary = self._canaries.get(verdict.task)
        judged = verdict.utility is not None
        return canary if judged and canary is not None and canary.wants(data) else None

    def compare(self, canary: Canary, data: bytes, verdict: Verdict) -> None:
        """Let `canary` look at an image that was judged. Never raises."""
        canary.compare(data, verdict, self._limits, self._metrics)

    def _pass(self, task: str, mode: Mode, note: str) -> Verdict:
        card = self._predictors[task].card
        return self._count(
            Verdict(
                task=task,
                utility=None,
                decision=Decision.USEFUL,
                thresholds=card.thresholds,
                reasons=(),
                predictor=card.info,
                image=None,
                mode=mode,
                note=note,
            )
        )

    def _judge(self, data: bytes, task: str, mode: Mode) -> Verdict:
        card = self._predictors[task].card
        seen = self._look(data, task)
        image, utility = seen.image, seen.utility
        judgement = card.thresholds.decide(utility)
        measured = measure(image, seen.crop, self._measure_limits, card.min_side)
        return Verdict(
            task=task,
            utility=utility,
            decision=judgement if mode is Mode.ENFORCE else Decision.USEFUL,
            thresholds=card.thresholds,
            reasons=_low_utility(utility, judgement, card.thresholds) + measured,
            predictor=card.info,
            image=ImageInfo(image.format, image.width, image.height),
            mode=mode,
            advice=advise_on(image, measured, utility, card.thresholds, card.preprocess.resize),
        )

    def _look(self, data: bytes, task: str) -> Look:
        predictor = self._predictors[task]
        started = time.perf_counter()
        with self._tracer.span("decode"):
            image = predictor.decode(data, self._limits)
            crop = predictor.crop(image)
        decoded = time.perf_counter()
        with self._tracer.span("infer"):
            utility = predictor.judge(image, crop)
        self._metrics.decode_seconds.observe(decoded - started)
        self._metrics.infer_seconds.labels(task).observe(time.perf_counter() - decoded)
        return Look(image, crop, utility)

    def _count(self, verdict: Verdict) -> Verdict:
        version = verdict.predictor.version if verdict.predictor is not None else ""
        self._metrics.verdicts.labels(
            verdict.task, verdict.mode, verdict.decision, verdict.judgement or "NONE", version
        ).inc()
        return verdict


def _low_utility(utility: float, judgement: Decision, thresholds: Thresholds) -> tuple[Reason, ...]:
    """The reason that every judgement other than USEFUL has."""
    if judgement is Decision.USEFUL:
        return ()
    text = f"the predicted utility is {utility:.3f}, below {thresholds.useful:.3f}"
    return (Reason(ReasonKind.LOW_UTILITY, utility, thresholds.useful, text),)
