"""A pipeline's handlers and contexts, with the gate put in between."""

from __future__ import annotations

from typing import Any

import grpc

from utility_gate.interceptors.rules import DECISION_KEY, JUDGEMENT_KEY, MODE_KEY, notes
from utility_gate.types import Verdict

Handler = Any
"""grpc's RpcMethodHandler; its behaviour is typed differently for aio."""

_KEYS = (DECISION_KEY, MODE_KEY, JUDGEMENT_KEY)


def behaviour_of(handler: Handler) -> Any:
    """The function that serves a handler's calls."""
    return getattr(handler, _arity(handler))


def with_behaviour(handler: Handler, behaviour: Any) -> Handler:
    """The same handler served by another function."""
    make = getattr(grpc, f"{_arity(handler)}_rpc_method_handler")
    return make(
        behaviour,
        request_deserializer=handler.request_deserializer,
        response_serializer=handler.response_serializer,
    )


class JudgedContext:
    """The pipeline's own context, plus what the gate said.

    The handler finds it in the invocation metadata, the caller in the trailing metadata, beside
    whatever trailers the handler sets. What a caller claims under our keys is not passed on.
    """

    def __init__(self, context: Any) -> None:
        self.inner = context
        self._notes: tuple[tuple[str, str], ...] = ()
        self._trailers: tuple[Any, ...] = ()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def note(self, verdict: Verdict) -> None:
        """Tell handler and caller; of a stream's verdicts, each different one once."""
        self._notes += tuple(note for note in notes(verdict) if note not in self._notes)
        self._send()

    def invocation_metadata(self) -> tuple[Any, ...]:
        """What the caller sent, and what the gate said."""
        sent = self.inner.invocation_metadata() or ()
        return (*(pair for pair in sent if pair[0] not in _KEYS), *self._notes)

    def set_trailing_metadata(self, trailing_metadata: Any) -> None:
        """As in grpc; what the gate said stays."""
        self._trailers = tuple(trailing_metadata)
        self._send()

    def _send(self) -> None:
        self.inner.set_trailing_metadata((*self._trailers, *self._notes))


def _arity(handler: Handler) -> str:
    request = "stream" if handler.request_streaming else "unary"
    return f"{request}_{'stream' if handler.response_streaming else 'unary'}"
