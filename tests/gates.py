"""Gates that misbehave on purpose, and gRPC servers for a test's time."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc

from utility_gate import wire
from utility_gate.types import Decision, ImageInfo, PredictorInfo, Thresholds, Verdict
from utility_gate.v1 import gate_pb2 as pb
from utility_gate.v1 import gate_pb2_grpc as pb_grpc

VERDICT = Verdict(
    task="general",
    utility=0.9,
    decision=Decision.USEFUL,
    thresholds=Thresholds(0.6, 0.4),
    reasons=(),
    predictor=PredictorInfo("scripted", "1", "0" * 64),
    image=ImageInfo("PNG", 8, 8),
)


class ScriptedGate(pb_grpc.UtilityGateServiceServicer):
    """Answers call after call with the next code of a script, the last one for ever; OK is a
    verdict. `pushback` (ms) goes with every refusal, `seconds` is what an answer takes."""

    def __init__(
        self,
        codes: Sequence[grpc.StatusCode] = (grpc.StatusCode.OK,),
        *,
        pushback: str | None = None,
        seconds: float = 0.0,
    ) -> None:
        self._codes, self._pushback, self._seconds = list(codes), pushback, seconds
        self.times: list[float] = []
        self.remaining: list[float] = []
        self.peers: set[str] = set()
        self.target = ""

    @property
    def attempts(self) -> int:
        return len(self.times)

    def Assess(self, request: Any, context: Any) -> pb.AssessResponse:  # noqa: N802
        code = self._codes[min(len(self.times), len(self._codes) - 1)]
        self.times.append(time.monotonic())
        self.remaining.append(context.time_remaining())
        self.peers.add(context.peer())
        if self._seconds:
            time.sleep(self._seconds)
        if code is not grpc.StatusCode.OK:
            if self._pushback is not None:
                context.set_trailing_metadata((("grpc-retry-pushback-ms", self._pushback),))
            context.abort(code, "as written in the script")
        return pb.AssessResponse(verdict=wire.from_verdict(VERDICT))


@contextmanager
def serving(gate: ScriptedGate) -> Iterator[ScriptedGate]:
    """`gate` on a free loopback port, at its `target`."""
    server = grpc.server(ThreadPoolExecutor(16))
    pb_grpc.add_UtilityGateServiceServicer_to_server(gate, server)
    gate.target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield gate
    finally:
        server.stop(0).wait()
