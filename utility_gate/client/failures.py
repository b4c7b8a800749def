"""Failed calls to the errors of `utility_gate.errors`, in one place."""

from __future__ import annotations

from typing import Any, NoReturn

import grpc
from google.rpc import error_details_pb2, status_pb2

from utility_gate import errors, wire
from utility_gate.client.values import StreamAnswer
from utility_gate.errors import (
    GateCancelledError,
    GateDeniedError,
    GateError,
    GateProtocolError,
    GateTimeoutError,
    GateUnavailableError,
    InputError,
    UtilityGateError,
)
from utility_gate.v1 import gate_pb2 as pb

INPUT_ERRORS: dict[str, type[InputError]] = {
    "NOT_AN_IMAGE": errors.NotAnImageError,
    "CORRUPT_IMAGE": errors.CorruptImageError,
    "IMAGE_TOO_LARGE": errors.ImageTooLargeError,
    "UNKNOWN_TASK": errors.UnknownTaskError,
}
"""By the `reason` of a field violation."""

_UNAVAILABLE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED)
_DENIED = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)


def raise_ours(error: Any) -> NoReturn:
    """Raise the error of `utility_gate.errors` that a failed call stands for."""
    raise to_ours(error) from error


def to_ours(error: Any) -> UtilityGateError:
    """The error of `utility_gate.errors` that a failed call (an RpcError) stands for."""
    ours = _to_error(error.code(), error.details() or "", _details(error))
    ours.__cause__ = error
    return ours


def to_answer(answer: pb.AssessStreamResponse) -> StreamAnswer:
    """What a stream answered to one image."""
    if answer.WhichOneof("result") == "verdict":
        try:
            return answer.id, wire.to_verdict(answer.verdict)
        except GateProtocolError as error:
            return answer.id, error
    failed = answer.error
    codes = {code.value[0]: code for code in grpc.StatusCode}
    code = codes.get(failed.code, grpc.StatusCode.UNKNOWN)
    if code is grpc.StatusCode.INVALID_ARGUMENT:
        return answer.id, _input_error(failed.reason, failed.message)
    return answer.id, _to_error(code, failed.message, None)


def _to_error(
    code: grpc.StatusCode, message: str, details: status_pb2.Status | None
) -> UtilityGateError:
    if code is grpc.StatusCode.INVALID_ARGUMENT:
        return _input_error(_violation_reason(details), message)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return GateTimeoutError(f"the gate did not answer in time: {message}")
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in message:
        return errors.ImageTooLargeError(message)  # refused by gRPC before the gate saw it
    if code in _UNAVAILABLE:
        return GateUnavailableError(f"the gate is not available: {message}")
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return GateProtocolError(f"the server at this address is no utility gate: {message}")
    if code in _DENIED:
        return GateDeniedError(f"the gate does not take these credentials: {message}")
    if code is grpc.StatusCode.CANCELLED:
        return GateCancelledError(f"the call was cancelled: {message}")
    return GateError(f"the gate failed with {code.name}: {message}")


def _input_error(reason: str, message: str) -> InputError:
    return INPUT_ERRORS.get(reason, InputError)(message)


def _details(error: Any) -> status_pb2.Status | None:
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            return status_pb2.Status.FromString(value)
    return None


def _violation_reason(details: status_pb2.Status | None) -> str:
    for packed in details.details if details is not None else ():
        bad_request = error_details_pb2.BadRequest()
        if packed.Unpack(bad_request) and bad_request.field_violations:
            return str(bad_request.field_violations[0].reason)
    return ""
