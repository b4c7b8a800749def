"""Ask a gate: `GateClient` for threads, `AsyncGateClient` for asyncio. Thread-safe, reusable."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from types import TracebackType
from typing import Any, NoReturn

import grpc
from google.rpc import error_details_pb2, status_pb2

from utility_gate import errors, wire
from utility_gate.errors import (
    GateError,
    GateProtocolError,
    GateTimeoutError,
    GateUnavailableError,
    InputError,
    UtilityGateError,
)
from utility_gate.types import GateInfo, Verdict
from utility_gate.v1 import gate_pb2 as pb
from utility_gate.v1 import gate_pb2_grpc as pb_grpc

DEFAULT_TIMEOUT = 10.0
"""Seconds for one call, retries included."""

_UNAVAILABLE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED)

_SERVICE_CONFIG = {
    "methodConfig": [
        {
            "name": [{"service": "utility_gate.v1.UtilityGateService"}],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.1s",
                "maxBackoff": "1s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
    # While more than half of the calls fail, retries would only add to the load.
    "retryThrottling": {"maxTokens": 10, "tokenRatio": 0.5},
}

_OPTIONS: tuple[tuple[str, str | int], ...] = (
    ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
    ("grpc.per_rpc_retry_buffer_size", 32 * 1024 * 1024),  # larger calls would not be retried
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.max_send_message_length", -1),
)

_INPUT_ERRORS: dict[str, type[InputError]] = {
    "NOT_AN_IMAGE": errors.NotAnImageError,
    "CORRUPT_IMAGE": errors.CorruptImageError,
    "IMAGE_TOO_LARGE": errors.ImageTooLargeError,
    "UNKNOWN_TASK": errors.UnknownTaskError,
}

StreamItem = tuple[str, bytes]
StreamAnswer = tuple[str, Verdict | UtilityGateError]


class GateClient:
    """A gate at `target` ("host:port"), asked from ordinary threads.

    Every method may raise a GateError: GateTimeoutError, GateUnavailableError (after retries),
    GateProtocolError, or GateError itself for a failure inside the gate or a cancelled call;
    `assess` also an InputError for an image that cannot be judged.
    """

    def __init__(self, target: str, *, task: str = "", timeout: float = DEFAULT_TIMEOUT) -> None:
        """`task` "" is the gate's default one; `timeout` is in seconds per call. Plaintext."""
        self._task, self._timeout = task, timeout
        self._channel = grpc.insecure_channel(target, options=_OPTIONS)
        self._stub: Any = pb_grpc.UtilityGateServiceStub(self._channel)

    def assess(self, image: bytes, *, task: str | None = None) -> Verdict:
        """The verdict on one encoded image (JPEG, PNG, WebP)."""
        try:
            answer = self._stub.Assess(self._request(image, task), timeout=self._timeout)
        except grpc.RpcError as error:
            raise_ours(error)
        return wire.to_verdict(answer.verdict)

    def assess_stream(
        self, images: Iterable[StreamItem], *, task: str | None = None, timeout: float | None = None
    ) -> Iterator[StreamAnswer]:
        """(id, encoded image) pairs in; (id, verdict or error) pairs out, as they are ready.

        `timeout` is for the whole stream; None leaves it unbounded. What `images` raises is
        raised here.
        """
        name = self._task if task is None else task
        failed: list[BaseException] = []

        def requests() -> Iterator[pb.AssessStreamRequest]:
            try:
                for number, data in images:
                    yield pb.AssessStreamRequest(id=number, image=data, task=name)
            except Exception as error:  # gRPC would hide it
                failed.append(error)
                raise

        call = self._stub.AssessStream(requests(), timeout=timeout)
        try:
            for answer in call:
                yield _to_answer(answer)
        except grpc.RpcError as error:
            if failed:
                raise failed[0] from None
            raise_ours(error)
        finally:
            call.cancel()  # whoever stops reading stops the sending too

    def info(self) -> GateInfo:
        """What the gate serves."""
        try:
            answer = self._stub.GetInfo(pb.GetInfoRequest(), timeout=self._timeout)
        except grpc.RpcError as error:
            raise_ours(error)
        return wire.to_info(answer)

    def close(self) -> None:
        """Close the channel; calls under way are cancelled."""
        self._channel.close()

    def __enter__(self) -> GateClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.close()

    def _request(self, image: bytes, task: str | None) -> pb.AssessRequest:
        return pb.AssessRequest(image=image, task=self._task if task is None else task)


class AsyncGateClient:
    """The same from asyncio. Make it inside the event loop that uses it."""

    def __init__(self, target: str, *, task: str = "", timeout: float = DEFAULT_TIMEOUT) -> None:
        """`task` "" is the gate's default one; `timeout` is in seconds per call. Plaintext."""
        self._task, self._timeout = task, timeout
        self._channel = grpc.aio.insecure_channel(target, options=_OPTIONS)
        self._stub: Any = pb_grpc.UtilityGateServiceStub(self._channel)

    async def assess(self, image: bytes, *, task: str | None = None) -> Verdict:
        """The verdict on one encoded image (JPEG, PNG, WebP)."""
        request = pb.AssessRequest(image=image, task=self._task if task is None else task)
        try:
            answer = await self._stub.Assess(request, timeout=self._timeout)
        except grpc.RpcError as error:
            raise_ours(error)
        return wire.to_verdict(answer.verdict)

    async def assess_stream(
        self,
        images: AsyncIterable[StreamItem],
        *,
        task: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - a gRPC deadline, sent to the server
    ) -> AsyncIterator[StreamAnswer]:
        """(id, encoded image) pairs in; (id, verdict or error) pairs out, as they are ready."""
        name = self._task if task is None else task
        failed: list[BaseException] = []

        async def requests() -> AsyncIterator[pb.AssessStreamRequest]:
            try:
                async for number, data in images:
                    yield pb.AssessStreamRequest(id=number, image=data, task=name)
            except Exception as error:  # gRPC would turn it into a cancellation
                failed.append(error)
                raise

        call = self._stub.AssessStream(requests(), timeout=timeout)
        try:
            async for answer in call:
                yield _to_answer(answer)
        except grpc.RpcError as error:
            if failed:
                raise failed[0] from None
            raise_ours(error)
        except asyncio.CancelledError:
            if failed:
                raise failed[0] from None
            raise
        finally:
            call.cancel()  # whoever stops reading stops the sending too

    async def info(self) -> GateInfo:
        """What the gate serves."""
        try:
            answer = await self._stub.GetInfo(pb.GetInfoRequest(), timeout=self._timeout)
        except grpc.RpcError as error:
            raise_ours(error)
        return wire.to_info(answer)

    async def close(self) -> None:
        """Close the channel; calls under way are cancelled."""
        await self._channel.close()

    async def __aenter__(self) -> AsyncGateClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        await self.close()


def raise_ours(error: Any) -> NoReturn:
    """Raise the error of `utility_gate.errors` that a failed call stands for."""
    raise _to_error(error.code(), error.details() or "", _details(error)) from error


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
    return GateError(f"the gate failed with {code.name}: {message}")


def _input_error(reason: str, message: str) -> InputError:
    return _INPUT_ERRORS.get(reason, InputError)(message)


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


def _to_answer(answer: pb.AssessStreamResponse) -> StreamAnswer:
    if answer.WhichOneof("result") == "verdict":
        return answer.id, wire.to_verdict(answer.verdict)
    failed = answer.error
    codes = {code.value[0]: code for code in grpc.StatusCode}
    code = codes.get(failed.code, grpc.StatusCode.UNKNOWN)
    if code is grpc.StatusCode.INVALID_ARGUMENT:
        return answer.id, _input_error(failed.reason, failed.message)
    return answer.id, _to_error(code, failed.message, None)
