"""Types to protobuf and back, in pairs, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from utility_gate.errors import GateProtocolError
from utility_gate.types import (
    Advice,
    AdviceKind,
    Decision,
    GateInfo,
    ImageInfo,
    Mode,
    PredictorInfo,
    Reason,
    ReasonKind,
    Rung,
    Suggestion,
    TaskInfo,
    Thresholds,
    Verdict,
)
from utility_gate.v1 import gate_pb2 as pb


def from_verdict(verdict: Verdict) -> pb.Verdict:
    """A verdict as a message."""
    return pb.Verdict(
        task=verdict.task,
        utility=verdict.utility,
        decision=f"DECISION_{verdict.decision}",
        thresholds=from_thresholds(verdict.thresholds) if verdict.thresholds else None,
        reasons=[from_reason(reason) for reason in verdict.reasons],
        predictor=from_predictor(verdict.predictor) if verdict.predictor else None,
        image=from_image(verdict.image) if verdict.image else None,
        mode=f"MODE_{verdict.mode}",
        judgement=f"DECISION_{verdict.judgement or 'UNSPECIFIED'}",
        note=verdict.note,
        advice=[from_advice(advice) for advice in verdict.advice],
    )


def to_verdict(message: pb.Verdict) -> Verdict:
    """A message as a verdict.

    Raises:
        GateProtocolError: if the message holds no valid verdict.
    """
    try:
        return Verdict(
            task=message.task,
            utility=message.utility if message.HasField("utility") else None,
            decision=Decision(_enum_name(pb.Decision.Name, message.decision, "DECISION_")),
            thresholds=to_thresholds(message.thresholds)
            if message.HasField("thresholds")
            else None,
            reasons=tuple(
                to_reason(r) for r in message.reasons if _is_known(r.kind, pb.ReasonKind)
            ),
            predictor=to_predictor(message.predictor) if message.HasField("predictor") else None,
            image=to_image(message.image) if message.HasField("image") else None,
            mode=to_mode(message.mode),
            note=message.note,
            advice=_to_known_advice(message.advice),
        )
    except ValueError as error:
        raise GateProtocolError(
            f"the gate sent a verdict that this client cannot use: {error}"
        ) from error


def from_suggestion(suggestion: Suggestion) -> pb.Suggestion:
    """A suggestion as a message."""
    chosen = suggestion.chosen
    return pb.Suggestion(
        task=suggestion.task,
        found=chosen is not None,
        quality=chosen.quality if chosen else 0,
        utility=chosen.utility if chosen else 0.0,
        bytes_before=suggestion.size or 0,
        bytes_after=chosen.size if chosen else 0,
        curve=[from_rung(rung) for rung in suggestion.curve],
        advice=[from_advice(advice) for advice in suggestion.advice],
        utility_before=suggestion.utility or 0.0,
        width=suggestion.width,
        height=suggestion.height,
        thresholds=from_thresholds(suggestion.thresholds),
        predictor=from_predictor(suggestion.predictor),
    )


def to_suggestion(message: pb.Suggestion) -> Suggestion:
    """A message as a suggestion.

    Raises:
        GateProtocolError: if the message holds no valid suggestion.
    """
    try:
        return Suggestion(
            task=message.task,
            thresholds=to_thresholds(message.thresholds),
            predictor=to_predictor(message.predictor),
            size=message.bytes_before or None,
            utility=message.utility_before if message.bytes_before else None,
            width=message.width,
            height=message.height,
            chosen=Rung(message.quality, message.utility, message.bytes_after)
            if message.found
            else None,
            curve=tuple(to_rung(rung) for rung in message.curve),
            advice=_to_known_advice(message.advice),
        )
    except ValueError as error:
        raise GateProtocolError(
            f"the gate sent a suggestion that this client cannot use: {error}"
        ) from error


def from_info(info: GateInfo) -> pb.GetInfoResponse:
    """What a gate serves, as a message."""
    return pb.GetInfoResponse(
        server_version=info.server_version,
        tasks=[
            pb.TaskInfo(
                name=task.name,
                thresholds=from_thresholds(task.thresholds),
                predictor=from_predictor(task.predictor),
                mode=f"MODE_{task.mode}",
            )
            for task in info.tasks
        ],
        limits=pb.Limits(
            max_image_bytes=info.max_image_bytes,
            max_image_pixels=info.max_image_pixels,
            formats=[f"IMAGE_FORMAT_{name}" for name in info.formats],
        ),
    )


def to_info(message: pb.GetInfoResponse) -> GateInfo:
    """A message as what a gate serves.

    Raises:
        GateProtocolError: if the message holds impossible thresholds.
    """
    try:
        return GateInfo(
            server_version=message.server_version,
            tasks=tuple(
                TaskInfo(
                    task.name,
                    to_thresholds(task.thresholds),
                    to_predictor(task.predictor),
                    to_mode(task.mode),
                )
                for task in message.tasks
            ),
            max_image_bytes=message.limits.max_image_bytes,
            max_image_pixels=message.limits.max_image_pixels,
            formats=tuple(_format_name(value) for value in message.limits.formats),
        )
    except ValueError as error:
        raise GateProtocolError(
            f"the gate sent an info that this client cannot use: {error}"
        ) from error


def from_thresholds(thresholds: Thresholds) -> pb.Thresholds:
    """Thresholds as a message."""
    return pb.Thresholds(useful=thresholds.useful, review=thresholds.review)


def to_thresholds(message: pb.Thresholds) -> Thresholds:
    """A message as thresholds; ValueError if they are impossible."""
    return Thresholds(useful=message.useful, review=message.review)


def from_reason(reason: Reason) -> pb.Reason:
    """A reason as a message."""
    return pb.Reason(
        kind=f"REASON_KIND_{reason.kind}",
        value=reason.value,
        threshold=reason.threshold,
        message=reason.message,
    )


def to_reason(message: pb.Reason) -> Reason:
    """A message as a reason; ValueError if it is of a kind that this version does not know."""
    kind = ReasonKind(_enum_name(pb.ReasonKind.Name, message.kind, "REASON_KIND_"))
    return Reason(kind, message.value, message.threshold, message.message)


def from_advice(advice: Advice) -> pb.Advice:
    """A piece of advice as a message."""
    return pb.Advice(kind=f"ADVICE_KIND_{advice.kind}", value=advice.value, message=advice.message)


def to_advice(message: pb.Advice) -> Advice:
    """A message as advice; ValueError if it is of a kind that this version does not know."""
    kind = AdviceKind(_enum_name(pb.AdviceKind.Name, message.kind, "ADVICE_KIND_"))
    value = message.value if message.HasField("value") else None
    return Advice(kind, value, message.message)


def from_rung(rung: Rung) -> pb.Rung:
    """A rung as a message."""
    return pb.Rung(quality=rung.quality, utility=rung.utility, bytes=rung.size)


def to_rung(message: pb.Rung) -> Rung:
    """A message as a rung; ValueError if it is none."""
    return Rung(message.quality, message.utility, message.bytes)


def from_image(image: ImageInfo) -> pb.ImageInfo:
    """What was decoded, as a message."""
    return pb.ImageInfo(
        format=f"IMAGE_FORMAT_{image.format}", width=image.width, height=image.height
    )


def to_image(message: pb.ImageInfo) -> ImageInfo:
    """A message as what was decoded; ValueError if it has no size."""
    return ImageInfo(_format_name(message.format), message.width, message.height)


def to_mode(value: int) -> Mode:
    """A mode's number as a mode; an older gate, which knows none, enforces."""
    if value == pb.MODE_UNSPECIFIED:
        return Mode.ENFORCE
    return Mode(_enum_name(pb.Mode.Name, value, "MODE_"))


def from_predictor(predictor: PredictorInfo) -> pb.PredictorInfo:
    """A predictor's identity as a message."""
    return pb.PredictorInfo(name=predictor.name, version=predictor.version, digest=predictor.digest)


def to_predictor(message: pb.PredictorInfo) -> PredictorInfo:
    """A message as a predictor's identity."""
    return PredictorInfo(message.name, message.version, message.digest)


def _is_known(kind: int, kinds: Any) -> bool:
    """A newer gate may know more kinds; its verdicts stay readable without them."""
    return kind in kinds.values() and kind != 0


def _to_known_advice(messages: Iterable[pb.Advice]) -> tuple[Advice, ...]:
    return tuple(to_advice(m) for m in messages if _is_known(m.kind, pb.AdviceKind))


def _format_name(value: int) -> str:
    """A newer gate may read more formats; its answers stay readable."""
    if value not in pb.ImageFormat.values():
        return f"UNKNOWN_{value}"
    return _enum_name(pb.ImageFormat.Name, value, "IMAGE_FORMAT_")


def _enum_name(name: Callable[[Any], str], value: int, prefix: str) -> str:
    return name(value).removeprefix(prefix)
