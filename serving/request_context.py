"""Which request the running code serves, for its log lines."""

from __future__ import annotations

import re
import uuid
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

ID_KEY = "x-request-id"
"""The metadata key in which a caller gives a request's id, and is given it back."""

_SANE_ID = re.compile(r"[!-~]{1,128}")
_MOST_TEXT = 128


@dataclass(frozen=True, slots=True)
class RequestContext:
    """What every log line of a request tells; "" is not told."""

    request_id: str
    client: str = ""
    method: str = ""
    task: str = ""
    trace_id: str = ""


_current: ContextVar[RequestContext | None] = ContextVar("utility_gate_request", default=None)


def current() -> RequestContext | None:
    """The request that is served here, if one is."""
    return _current.get()


def enter(request: RequestContext) -> None:
    """Serve `request` from here on, to the end of the running task.

    It is not left again: gRPC runs every RPC in a task of its own, whose context ends with it.
    """
    _current.set(request)


def bind(**fields: str) -> None:
    """Tell more of the request that is served here (`client`, `task`); without one, nothing.

    Values may come from callers: they are cut here and escaped where they are written.
    """
    request = _current.get()
    if request is not None:
        cut: dict[str, Any] = {name: value[:_MOST_TEXT] for name, value in fields.items()}
        _current.set(replace(request, **cut))


def choose_id(offered: object) -> str:
    """The caller's id if it is one (1 to 128 printable ASCII characters, no spaces), else a new
    one."""
    if isinstance(offered, str) and _SANE_ID.fullmatch(offered):
        return offered
    return uuid.uuid4().hex
