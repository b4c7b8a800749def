"""Errors to gRPC status codes, in one table."""

from __future__ import annotations

import logging
import math
import random
import uuid
from dataclasses import dataclass

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from serving import request_context
from utility_gate.errors import (
    InputError,
    NotReadyError,
    OverloadedError,
    TooLateError,
    UnauthenticatedError,
    UnknownModelError,
)

log = logging.getLogger(__name__)

RETRY_SECONDS = 0.5
"""Told to callers that were turned away."""

LONGEST_PAUSE = 3.0
"""Seconds after which gRPC may repeat a call by itself; who must wait longer is told at once."""

_CLOCKS_APART = 0.05
"""Seconds by which a caller's deadline may pass before ours does."""

ERROR_DOMAIN = "utility-gate"

CODES: dict[type[Exception], grpc.StatusCode] = {
    UnknownModelError: grpc.StatusCode.NOT_FOUND,
    InputError: grpc.StatusCode.INVALID_ARGUMENT,
    OverloadedError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    TooLateError: grpc.StatusCode.DEADLINE_EXCEEDED,
    NotReadyError: grpc.StatusCode.UNAVAILABLE,
    UnauthenticatedError: grpc.StatusCode.UNAUTHENTICATED,
}
"""The first entry that fits counts. What is not in this table, nor below one of its entries, is
INTERNAL."""


class AnsweredError(Exception):
    """Ends an RPC with a status that was made elsewhere, as it is."""

    def __init__(
        self,
        code: grpc.StatusCode,
        message: str,
        trailers: tuple[tuple[str, str | bytes], ...] = (),
    ) -> None:
        super().__init__(message)
        self.code, self.message, self.trailers = code, message, trailers


@dataclass(frozen=True, slots=True)
class Status:
    """What a caller is told of an error."""

    code: grpc.StatusCode
    message: str
    detail: Message
    field: str = ""
    reason: str = ""

    def to_trailers(self, left: float | None = None) -> tuple[tuple[str, str | bytes], ...]:
        """The trailing metadata in which gRPC carries `google.rpc.Status` details, and the pause
        that gRPC's own retries obey. `left` are the seconds of the caller's deadline."""
        packed = any_pb2.Any()
        packed.Pack(self.detail)
        status = status_pb2.Status(code=self.code.value[0], message=self.message, details=[packed])
        details = ("grpc-status-details-bin", status.SerializeToString())
        if not isinstance(self.detail, error_details_pb2.RetryInfo):
            return (details,)
        return details, ("grpc-retry-pushback-ms", str(_pushback(self.detail, left)))


def to_code(error: Exception) -> grpc.StatusCode:
    """The status code of an error."""
    if isinstance(error, AnsweredError):
        return error.code
    codes = (code for kind, code in CODES.items() if isinstance(error, kind))
    return next(codes, grpc.StatusCode.INTERNAL)


def to_status(error: Exception) -> Status:
    """The status for an error. An unexpected one is logged under a fresh id, and only the id is
    told."""
    code = to_code(error)
    if code is not grpc.StatusCode.INTERNAL:
        return _expected(error, code)
    incident = uuid.uuid4().hex[:12]
    log.error("incident %s", incident, exc_info=error, extra={"incident": incident})
    known = {"incident": incident}
    request = request_context.current()
    if request is not None:
        known["request_id"] = request.request_id
    detail = error_details_pb2.ErrorInfo(reason="INTERNAL", domain=ERROR_DOMAIN, metadata=known)
    return Status(
        grpc.StatusCode.INTERNAL, f"internal error; see incident {incident} in the log", detail
    )


def given_up(left: float | None) -> grpc.StatusCode:
    """The status code of a call that its caller ended with `left` seconds of its deadline to go
    (None: without one): a caller whose deadline passes cancels, by its own clock, which began
    before ours."""
    expired = left is not None and left <= _CLOCKS_APART
    return grpc.StatusCode.DEADLINE_EXCEEDED if expired else grpc.StatusCode.CANCELLED


def to_note(error: Exception) -> str:
    """What a caller is told of trouble that its image was let through in spite of."""
    return to_status(error).message


def _expected(error: Exception, code: grpc.StatusCode) -> Status:
    message = str(error)
    if isinstance(error, InputError):
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=error.field, description=message, reason=_reason(error)
        )
        bad_request = error_details_pb2.BadRequest(field_violations=[violation])
        return Status(code, message, bad_request, error.field, violation.reason)
    if isinstance(error, UnauthenticatedError):
        info = error_details_pb2.ErrorInfo(reason=_reason(error), domain=ERROR_DOMAIN)
        return Status(code, message, info)
    delay = duration_pb2.Duration()
    delay.FromMilliseconds(math.ceil(1000 * getattr(error, "retry_after", RETRY_SECONDS)))
    return Status(code, message, error_details_pb2.RetryInfo(retry_delay=delay))


def _pushback(retry: error_details_pb2.RetryInfo, left: float | None) -> int:
    """Milliseconds after which gRPC repeats the call by itself; -1 if it must not, or could not
    before the deadline: then the caller hears the reason, not that time is up."""
    seconds: float = retry.retry_delay.ToMilliseconds() / 1000
    if seconds > LONGEST_PAUSE or (left is not None and 1.2 * seconds >= left):
        return -1
    # Spread: who was turned away together need not come back together. gRPC adds no jitter here.
    return int(1000 * seconds * random.uniform(0.8, 1.2))  # noqa: S311


def _reason(error: Exception) -> str:
    """`ImageTooLargeError` to "IMAGE_TOO_LARGE"."""
    name = type(error).__name__.removesuffix("Error")
    return "".join(f"_{c}" if c.isupper() and i else c for i, c in enumerate(name)).upper()
