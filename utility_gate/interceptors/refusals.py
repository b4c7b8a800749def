"""Why a pipeline's call goes no further, as its caller is told."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from utility_gate.client.failures import INPUT_ERRORS
from utility_gate.client.fallback import is_trouble
from utility_gate.errors import GateCancelledError, ImageError, NotUsefulError
from utility_gate.interceptors.rules import explain, to_text
from utility_gate.types import Verdict

log = logging.getLogger(__name__)

DOMAIN = "utility-gate"
RETRY_MILLISECONDS = 500

_REASONS = {kind: reason for reason, kind in INPUT_ERRORS.items()}


@dataclass(frozen=True, slots=True)
class Refusal:
    """The end of a call."""

    code: grpc.StatusCode
    message: str
    trailers: tuple[tuple[str, str | bytes], ...]


def to_refusal(error: Exception, field: str) -> Refusal:
    """How a call ends whose image, in `field`, was not let through.

    What is wrong with the image is told in full; of trouble with the gate only that there is some,
    the rest is in the log.
    """
    if isinstance(error, NotUsefulError):
        return _build(grpc.StatusCode.FAILED_PRECONDITION, str(error), *_not_useful(error, field))
    if isinstance(error, ImageError):
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=field, description=str(error), reason=_REASONS.get(type(error), "")
        )
        detail = error_details_pb2.BadRequest(field_violations=[violation])
        return _build(grpc.StatusCode.INVALID_ARGUMENT, str(error), detail)
    if is_trouble(error) or isinstance(error, GateCancelledError):
        log.warning("a call was refused, its image could not be judged: %s", error)
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(RETRY_MILLISECONDS)
        message = "the image could not be judged, the utility gate is not available; try again"
        detail = error_details_pb2.RetryInfo(retry_delay=delay)
        return _build(grpc.StatusCode.UNAVAILABLE, message, detail)
    log.error("a call was refused, the utility check is set up wrongly", exc_info=error)
    return _build(grpc.StatusCode.INTERNAL, "the utility check of this server failed; see its log")


def _not_useful(error: NotUsefulError, field: str) -> tuple[Message, Message]:
    verdict = error.verdict
    violation = error_details_pb2.PreconditionFailure.Violation(
        type="UTILITY", subject=field, description=explain(verdict)
    )
    return (
        error_details_pb2.PreconditionFailure(violations=[violation]),
        error_details_pb2.ErrorInfo(
            reason="IMAGE_NOT_USEFUL", domain=DOMAIN, metadata=facts(verdict)
        ),
    )


def facts(verdict: Verdict) -> dict[str, str]:
    """What is told of an image that was stopped, as ErrorInfo's metadata. `reasons` and `advice`
    are kinds with their values: "LOW_UTILITY=0.12,LOW_JPEG_QUALITY=10" and
    "HIGHER_QUALITY=45,LARGER=224"."""
    known = {
        "decision": str(verdict.decision),
        "task": verdict.task,
        "reasons": to_text(verdict.reasons),
        "advice": to_text(verdict.advice),
    }
    if verdict.utility is not None:
        known["utility"] = f"{verdict.utility:.6f}"
    if verdict.predictor is not None:
        known["predictor"] = verdict.predictor.name
        known["predictor_version"] = verdict.predictor.version
    return known


def _build(code: grpc.StatusCode, message: str, *details: Message) -> Refusal:
    packed = []
    for detail in details:
        packed.append(any_pb2.Any())
        packed[-1].Pack(detail)
    status = status_pb2.Status(code=code.value[0], message=message, details=packed)
    packed_status = ("grpc-status-details-bin", status.SerializeToString())
    if code is not grpc.StatusCode.UNAVAILABLE:
        return Refusal(code, message, (packed_status,))
    pause = ("grpc-retry-pushback-ms", str(RETRY_MILLISECONDS))  # what gRPC's own retries obey
    return Refusal(code, message, (packed_status, pause))
