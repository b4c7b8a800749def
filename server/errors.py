"""Errors to gRPC status codes, in one table."""

from __future__ import annotations

import logging
import uuid
from dataclasses import dataclass

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from utility_gate.errors import InputError, NotReadyError, OverloadedError
from utility_gate.v1 import gate_pb2 as pb

log = logging.getLogger(__name__)

RETRY_SECONDS = 0.5
"""Told to callers that were turned away; clients add jitter."""

ERROR_DOMAIN = "utility-gate"

CODES: dict[type[Exception], grpc.StatusCode] = {
    InputError: grpc.StatusCode.INVALID_ARGUMENT,
    OverloadedError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    NotReadyError: grpc.StatusCode.UNAVAILABLE,
}
"""What is not in this table, nor below one of its entries, is INTERNAL."""


@dataclass(frozen=True, slots=True)
class Status:
    """What a caller is told of an error."""

    code: grpc.StatusCode
    message: str
    detail: Message
    field: str = ""
    reason: str = ""

    def to_trailers(self) -> tuple[tuple[str, bytes], ...]:
        """The trailing metadata in which gRPC carries `google.rpc.Status` details."""
        packed = any_pb2.Any()
        packed.Pack(self.detail)
        status = status_pb2.Status(code=self.code.value[0], message=self.message, details=[packed])
        return (("grpc-status-details-bin", status.SerializeToString()),)

    def to_stream_error(self) -> pb.AssessError:
        """The same inside a stream."""
        return pb.AssessError(
            code=self.code.value[0], message=self.message, field=self.field, reason=self.reason
        )


def to_code(error: Exception) -> grpc.StatusCode:
    """The status code of an error."""
    codes = (code for kind, code in CODES.items() if isinstance(error, kind))
    return next(codes, grpc.StatusCode.INTERNAL)


def to_status(error: Exception) -> Status:
    """The status for an error. An unexpected one is logged under a fresh id, and only the id is
    told."""
    code = to_code(error)
    if code is not grpc.StatusCode.INTERNAL:
        return _expected(error, code)
    incident = uuid.uuid4().hex[:12]
    log.error("incident %s", incident, exc_info=error)
    detail = error_details_pb2.ErrorInfo(
        reason="INTERNAL", domain=ERROR_DOMAIN, metadata={"incident": incident}
    )
    return Status(
        grpc.StatusCode.INTERNAL, f"internal error; see incident {incident} in the log", detail
    )


def _expected(error: Exception, code: grpc.StatusCode) -> Status:
    message = str(error)
    if isinstance(error, InputError):
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=error.field, description=message, reason=_reason(error)
        )
        bad_request = error_details_pb2.BadRequest(field_violations=[violation])
        return Status(code, message, bad_request, error.field, violation.reason)
    delay = duration_pb2.Duration()
    delay.FromMilliseconds(int(RETRY_SECONDS * 1000))
    return Status(code, message, error_details_pb2.RetryInfo(retry_delay=delay))


def _reason(error: Exception) -> str:
    """`ImageTooLargeError` to "IMAGE_TOO_LARGE"."""
    name = type(error).__name__.removesuffix("Error")
    return "".join(f"_{c}" if c.isupper() and i else c for i, c in enumerate(name)).upper()
