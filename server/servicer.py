"""gRPC messages to calls of the gate and back; decides nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import grpc
from grpc import StatusCode

from server.attributes import describe
from server.counted import Deadline, counted
from server.gate import Gate
from server.metrics import GateMetrics
from server.suggestions import Suggestions
from serving.auth import client_identity
from serving.current import Current
from serving.errors import Status, to_note, to_status
from serving.request_context import bind
from serving.tracing import NO_TRACER, Tracer, queued
from serving.workers import Workers
from utility_gate import wire
from utility_gate.errors import InputError, NotReadyError, OverloadedError
from utility_gate.streams import map_unordered
from utility_gate.types import Mode, Verdict
from utility_gate.v1 import gate_pb2 as pb
from utility_gate.v1 import gate_pb2_grpc as pb_grpc

Context = grpc.aio.ServicerContext[object, object]


class Question(Protocol):
    """One image, and the task to judge it for ("" is the default one)."""

    @property
    def image(self) -> bytes:
        """Its encoded bytes."""

    @property
    def task(self) -> str:
        """The task's name."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What holds in place of the task's own settings; None: nothing does."""

    mode: Mode | None = None
    fail_open: bool | None = None


_OF_THE_TASK = Policy()

_ONE_IMAGE = "Assess"
"""The method whose RPCs are about one image. In others each image has a span of its own."""

_CANARY = "\0canary"
"""The canaries' name in the line of clients; no client can be called so."""

_CANARIES = 4
"""Images that may wait for canaries; each one holds its bytes."""


class UtilityGateServicer(pb_grpc.UtilityGateServiceServicer):
    """Serves the current gate through `workers`; without one (starting) every call is UNAVAILABLE.

    Once it is `closing`, streams take no further image and end when theirs are answered.
    """

    def __init__(
        self,
        current: Current[Gate],
        workers: Workers,
        stream_concurrency: int,
        metrics: GateMetrics,
        tracer: Tracer = NO_TRACER,
        admit: Callable[[], None] = lambda: None,
        most_streams: int = 64,
        charge: Callable[[int], None] = lambda _: None,
        most_suggestions: int = 1,
    ) -> None:
        """`admit` is asked before each image, and raises if the caller may send no more; `charge`
        accounts for images that were judged without being asked for one by one."""
        self._current = current
        self._workers = workers
        self._stream_concurrency = stream_concurrency
        self._metrics = metrics
        self._tracer = tracer
        self._admit = admit
        self._most_streams, self._streams = most_streams, 0
        self._canaries: set[asyncio.Future[None]] = set()
        self._suggestions = Suggestions(workers, metrics, tracer, admit, charge, most_suggestions)

    async def Assess(  # noqa: N802 - named by the contract
        self,
        request: pb.AssessRequest,
        context: Context,
    ) -> pb.AssessResponse:
        """Judge one image."""
        self.ready()
        verdict = await self.judge("Assess", request, context)
        return pb.AssessResponse(verdict=wire.from_verdict(verdict))

    async def AssessStream(  # noqa: N802
        self,
        requests: AsyncIterator[pb.AssessStreamRequest],
        context: Context,
    ) -> AsyncIterator[pb.AssessStreamResponse]:
        """Judge images as they arrive."""
        self.ready()
        whole = False

        async def taken() -> AsyncIterator[pb.AssessStreamRequest]:
            nonlocal whole
            async for request in requests:
                yield request
            whole = True

        with self._one_more_stream():
            answers = map_unordered(
                taken(),
                lambda request: self._answer(request, context),
                self._stream_concurrency,
                self._current.closing,
            )
            async with contextlib.aclosing(answers):
                async for answer in answers:
                    yield answer
        if self._current.closing.is_set() and not whole:
            raise NotReadyError("the gate is shutting down; send the rest to another one")

    @contextlib.contextmanager
    def _one_more_stream(self) -> Iterator[None]:
        if self._streams >= self._most_streams:
            self._metrics.shed.inc()
            raise OverloadedError(
                f"expected at most {self._most_streams} streams at a time; try again later"
            )
        self._streams += 1
        try:
            yield
        finally:
            self._streams -= 1

    async def Suggest(  # noqa: N802
        self,
        request: pb.SuggestRequest,
        context: Context,
    ) -> pb.SuggestResponse:
        """Say how far an image can be compressed."""
        suggestion = await self._suggestions.make(self.ready(), request, context)
        return pb.SuggestResponse(suggestion=wire.from_suggestion(suggestion))

    async def GetInfo(  # noqa: N802
        self,
        request: pb.GetInfoRequest,
        context: Context,
    ) -> pb.GetInfoResponse:
        """Say what is served."""
        return wire.from_info(self.ready().info)

    async def _answer(
        self, request: pb.AssessStreamRequest, context: Context
    ) -> pb.AssessStreamResponse:
        try:
            verdict = await self.judge("AssessStream", request, context, patient=True)
        except Exception as error:  # noqa: BLE001 - one image must not end the stream
            return pb.AssessStreamResponse(id=request.id, error=_to_stream_error(to_status(error)))
        return pb.AssessStreamResponse(id=request.id, verdict=wire.from_verdict(verdict))

    async def judge(
        self,
        method: str,
        request: Question,
        context: Deadline,
        *,
        patient: bool = False,
        policy: Policy = _OF_THE_TASK,
    ) -> Verdict:
        """The verdict on one image of a call of `method`, counted; a patient one is not shed."""
        span = contextlib.nullcontext() if method == _ONE_IMAGE else self._tracer.span("image")
        with counted(self._metrics, method, context), span:
            return await self._trace(request, context, policy, patient=patient)

    def let_through(self, method: str, task: str, note: str) -> Verdict:
        """The verdict on an image of a call of `method` that nobody can find, counted; `note` says
        why it passes all the same."""
        gate = self._current.get()
        self._admit()
        verdict = gate.fall_back(gate.find(task), note)
        self._metrics.images.labels(method, StatusCode.OK.name).inc()
        return verdict

    async def _trace(
        self, request: Question, context: Deadline, policy: Policy, *, patient: bool
    ) -> Verdict:
        bind(task=request.task)
        if not self._tracer.enabled:
            return await self._judge_or_fall_back(request, context, policy, patient=patient)
        asked = {"task": request.task, "image.id": getattr(request, "id", "")}
        self._tracer.annotate({f"utility_gate.{k}": v[:128] for k, v in asked.items() if v})
        self._tracer.annotate({"utility_gate.image.bytes": len(request.image)})
        verdict = await self._judge_or_fall_back(request, context, policy, patient=patient)
        self._tracer.annotate(describe(verdict))
        return verdict

    async def _judge_or_fall_back(
        self, request: Question, context: Deadline, policy: Policy, *, patient: bool
    ) -> Verdict:
        gate = self._current.get()
        task = gate.find(request.task)
        self._admit()  # not for the fall back to make good
        mode = policy.mode or gate.mode(task)
        if mode is Mode.OFF:
            return gate.assess(request.image, task, mode)  # unseen: nothing to wait for
        try:
            with queued(self._tracer, lambda: gate.assess(request.image, task, mode)) as work:
                verdict = await self._workers.run(
                    work,
                    client=client_identity(),
                    seconds=context.time_remaining(),
                    patient=patient,
                )
        except InputError:
            raise
        except Exception as error:
            fails_open = gate.fails_open(task) if policy.fail_open is None else policy.fail_open
            if not fails_open:
                raise
            return gate.fall_back(task, to_note(error))
        self._let_canary_look(gate, request.image, verdict)
        return verdict

    def _let_canary_look(self, gate: Gate, image: bytes, verdict: Verdict) -> None:
        """After the answer, as a client of its own; when too many wait, not at all."""
        canary = gate.canary(image, verdict)
        if canary is None:
            return
        if len(self._canaries) >= _CANARIES:
            self._metrics.canary_skipped.inc()
            return
        work = self._workers.run(
            lambda: gate.compare(canary, image, verdict), client=_CANARY, patient=True
        )
        task = asyncio.ensure_future(work)
        self._canaries.add(task)
        task.add_done_callback(self._forget_canary)

    def _forget_canary(self, task: asyncio.Future[None]) -> None:
        self._canaries.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._metrics.canary_skipped.inc()  # the gate is shutting down

    def ready(self) -> Gate:
        """The gate that serves now, for a call that begins now.

        Raises:
            NotReadyError: if the gate is starting, or takes no new call because it ends.
        """
        return self._current.ready()


def _to_stream_error(status: Status) -> pb.AssessError:
    """What a caller is told of an error, inside a stream."""
    return pb.AssessError(
        code=status.code.value[0],
        message=status.message,
        field=status.field,
        reason=status.reason,
    )
