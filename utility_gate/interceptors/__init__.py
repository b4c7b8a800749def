"""Put a gate in front of a pipeline, on its server's side or on its caller's.

One line in the server:
`grpc.server(pool, interceptors=[RequireUseful(gate, image_field="image")])`, or
`AsyncRequireUseful` in `grpc.aio.server`. One line in a caller:
`grpc.intercept_channel(channel, GateCalls(gate, image_field="image"))`, or
`grpc.aio.insecure_channel(target, interceptors=async_gate_calls(gate, image_field="image"))`.

All take the same options; `rules.Rules` explains them. What happens when the gate is in trouble,
the `on_failure` of the client says that they are given.
"""

from utility_gate.interceptors.calls import GateCalls
from utility_gate.interceptors.calls_aio import async_gate_calls
from utility_gate.interceptors.rules import DECISION_KEY, JUDGEMENT_KEY, MODE_KEY
from utility_gate.interceptors.server import RequireUseful
from utility_gate.interceptors.server_aio import AsyncRequireUseful

__all__ = [
    "DECISION_KEY",
    "JUDGEMENT_KEY",
    "MODE_KEY",
    "AsyncRequireUseful",
    "GateCalls",
    "RequireUseful",
    "async_gate_calls",
]
