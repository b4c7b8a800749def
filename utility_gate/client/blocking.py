"""The client for threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any

import grpc

from utility_gate import wire
from utility_gate.channels import open_channel
from utility_gate.client.base import BaseClient
from utility_gate.client.failures import raise_ours, to_answer, to_ours
from utility_gate.client.many import as_ready, check_concurrency
from utility_gate.client.values import StreamAnswer, StreamItem
from utility_gate.errors import GateProtocolError, UtilityGateError
from utility_gate.types import GateInfo, Suggestion, Verdict
from utility_gate.v1 import gate_pb2 as pb


class GateClient(BaseClient):
    """A gate at `target` ("host:port"), asked from ordinary threads; one client serves them all.

    Every method may raise a GateError: GateTimeoutError, GateUnavailableError (after retries),
    GateProtocolError, GateDeniedError, GateCancelledError, or GateError itself for a failure
    inside the gate; `assess` also an InputError for an image that cannot be judged.

    With `on_failure="open"` trouble with the gate does not stop images: in place of a GateError
    other than GateDeniedError and GateCancelledError comes a verdict of mode FALLBACK with the
    decision USEFUL. Choose a short `timeout` then: it is what a silent gate costs each image.
    """

    _open = staticmethod(open_channel)

    def assess(
        self,
        image: bytes,
        *,
        task: str | None = None,
        timeout: float | None = None,
        hurried: bool = False,
    ) -> Verdict:
        """The verdict on one encoded image (JPEG, PNG, WebP). Of a `hurried` call a `timeout` that
        is too short is an error also where the client fails open: give it where the timeout is
        somebody's whom the image comes from."""
        request = pb.AssessRequest(image=image, task=self._name(task))
        seconds = self.timeout if timeout is None else timeout
        return self._judge(
            lambda: self._stub.Assess(request, timeout=seconds), request.task, hurried=hurried
        )

    def assess_many(
        self, images: Iterable[StreamItem], *, concurrency: int = 8, task: str | None = None
    ) -> Iterator[StreamAnswer]:
        """(id, encoded image) pairs in; (id, verdict or error) pairs out, as they are ready.

        One call an image, `concurrency` at a time, each with the client's timeout and retries: a
        balancer can spread them over replicas, and one that fails fails alone, other than in a
        stream. `images` is read as there is room; what it raises is raised here. Whoever stops
        reading (closes the iterator) cancels what is under way.

        Raises:
            ConfigError: if `concurrency` is below 1.
        """
        check_concurrency(concurrency)
        name = self._name(task)

        def start(image: bytes) -> Any:
            request = pb.AssessRequest(image=image, task=name)
            return self._stub.Assess.future(request, timeout=self.timeout)

        def finish(number: str, call: Any) -> StreamAnswer:
            try:
                return number, self._judge(call.result, name)
            except UtilityGateError as error:
                return number, error

        return as_ready(images, start, finish, concurrency)

    def assess_stream(
        self, images: Iterable[StreamItem], *, task: str | None = None, timeout: float | None = None
    ) -> Iterator[StreamAnswer]:
        """(id, encoded image) pairs in; (id, verdict or error) pairs out, as they are ready.

        `timeout` is for the whole stream; None leaves it unbounded. What `images` raises is
        raised here. A stream that breaks raises a GateError, also with `on_failure="open"`: which
        images it leaves unanswered only the caller knows. Images that the gate fails on inside
        the stream are let through then.
        """
        name = self._name(task)
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
                yield self._fallback.answer(to_answer(answer), name)
        except grpc.RpcError as error:
            if failed:
                raise failed[0] from None
            raise_ours(error)
        finally:
            call.cancel()  # whoever stops reading stops the sending too

    def suggest(
        self,
        image: bytes,
        *,
        utility: float = 0.0,
        max_side: int = 0,
        task: str | None = None,
        timeout: float | None = None,
    ) -> Suggestion:
        """How far an encoded image (JPEG, PNG, WebP) can be compressed and stay useful, or keep
        `utility`, if that is not 0; scaled down first to a longer side of `max_side` pixels, if
        that is not 0.

        The gate judges up to 13 images for it. Raises an InputError for an image that cannot be
        judged and a GateError for trouble, also with `on_failure="open"`.
        """
        request = pb.SuggestRequest(
            image=image, task=self._name(task), utility=utility, max_side=max_side
        )
        seconds = self.timeout if timeout is None else timeout
        try:
            answer = self._stub.Suggest(request, timeout=seconds)
        except grpc.RpcError as error:
            raise_ours(error)
        return wire.to_suggestion(answer.suggestion)

    def info(self) -> GateInfo:
        """What the gate serves."""
        try:
            answer = self._stub.GetInfo(pb.GetInfoRequest(), timeout=self.timeout)
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

    def _judge(self, wait: Callable[[], Any], task: str, *, hurried: bool = False) -> Verdict:
        """The verdict of the answer that `wait` returns, or what there is in its place."""
        try:
            return wire.to_verdict(wait().verdict)
        except grpc.RpcError as error:
            failure = to_ours(error)
        except GateProtocolError as error:
            failure = error
        return self._fallback.instead(failure, task, hurried=hurried)
