"""The RPC Suggest: one image, judged again and again, each time in its turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from server.counted import Deadline, counted
from server.gate import Gate
from server.metrics import GateMetrics
from serving.auth import client_identity
from serving.request_context import bind
from serving.tracing import Tracer, queued
from serving.workers import Workers
from utility_gate.errors import InputError, OverloadedError
from utility_gate.types import Suggestion
from utility_gate.v1 import gate_pb2 as pb

METHOD = "Suggest"


class Suggestions:
    """Makes suggestions, at most `most` at a time: each holds its pixels until it is made.

    An image is judged about ten times for one; each time it stands in line like an image of its
    own, so that others are answered in between, and a caller who gives up is done with. The first
    time it is admitted or shed, later it waits. The caller's key must have room for one image;
    what else was judged is charged afterwards.
    """

    def __init__(
        self,
        workers: Workers,
        metrics: GateMetrics,
        tracer: Tracer,
        admit: Callable[[], None],
        charge: Callable[[int], None],
        most: int,
    ) -> None:
        """`admit` raises if the caller may send no more; `charge` accounts for so many more."""
        self._workers, self._metrics, self._tracer = workers, metrics, tracer
        self._admit, self._charge = admit, charge
        self._most, self._open = most, 0

    async def make(self, gate: Gate, request: pb.SuggestRequest, context: Deadline) -> Suggestion:
        """The suggestion for one image, counted."""
        with counted(self._metrics, METHOD, context), self._one_more():
            bind(task=request.task)
            suggester = gate.suggester(
                request.image, request.task, utility=request.utility, max_side=request.max_side
            )
            self._admit()
            try:
                while await self._step(suggester.step, context, patient=suggester.judged > 0):
                    pass
            except InputError as error:
                self._metrics.rejected_inputs.labels(type(error).__name__).inc()
                raise
            finally:
                self._charge(max(0, suggester.judged - 1))
            return suggester.result()

    async def _step(self, step: Callable[[], bool], context: Deadline, *, patient: bool) -> bool:
        with self._tracer.span("image"), queued(self._tracer, step) as work:
            return await self._workers.run(
                work, client=client_identity(), seconds=context.time_remaining(), patient=patient
            )

    @contextmanager
    def _one_more(self) -> Iterator[None]:
        if self._open >= self._most:
            self._metrics.shed.inc()
            raise OverloadedError(
                f"expected at most {self._most} suggestions at a time; try again later"
            )
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1
