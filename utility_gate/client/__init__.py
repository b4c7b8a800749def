"""Ask a gate: `GateClient` for threads, `AsyncGateClient` for asyncio.

A client is one channel: make one per gate, keep it, share it between threads (or between the tasks
of one event loop). Clients of one process with the same target share their connections anyway.

A call that was turned away (UNAVAILABLE, RESOURCE_EXHAUSTED) is repeated within its timeout, after
the pause that the gate asks for; anything else is not repeated. What a call does when the gate is
in trouble, `on_failure` says.
"""

from utility_gate.client.aio import AsyncGateClient
from utility_gate.client.blocking import GateClient
from utility_gate.client.failures import raise_ours
from utility_gate.client.fallback import OnFailure
from utility_gate.client.options import DEFAULT_TIMEOUT
from utility_gate.client.values import StreamAnswer, StreamItem

__all__ = [
    "DEFAULT_TIMEOUT",
    "AsyncGateClient",
    "GateClient",
    "OnFailure",
    "StreamAnswer",
    "StreamItem",
    "raise_ours",
]
