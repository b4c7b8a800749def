"""Which metadata pass through a route, and what the gate adds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from serving.request_context import ID_KEY
from utility_gate.types import Mode, Verdict

Pair = tuple[str, str | bytes]
Metadata = tuple[Pair, ...]

PREFIX = "utility-gate-"
"""Of what the gate says of an image, to the pipeline and to the caller, as the interceptors call it
too. What anyone else claims under such names goes no further."""

_OF_THE_CONNECTION = frozenset(
    {"connection", "content-length", "content-type", "host", "keep-alive", "proxy-authorization",
     "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "user-agent"}
)  # fmt: skip

_OF_GRPC_THAT_PASS = frozenset({"grpc-status-details-bin", "grpc-retry-pushback-ms"})
"""What a pipeline tells its callers by trailers, and nobody a pipeline; the rest of gRPC's own is
between neighbours."""

_NO_CONTROLS = str.maketrans({chr(code): " " for code in (*range(32), 127)})
_MOST_TEXT = 1024


def passing(metadata: Iterable[Pair] | None, *, without: Iterable[str] = ()) -> Metadata:
    """Those that are meant for the other end, except `without`."""
    left_out = _OF_THE_CONNECTION.union(without, (ID_KEY,))
    return tuple(
        (name, value)
        for name, value in metadata or ()
        if name not in left_out
        and not name.startswith((":", PREFIX))
        and (not name.startswith("grpc-") or name in _OF_GRPC_THAT_PASS)
    )


def forwarded(
    sent: Iterable[Pair] | None,
    added: Mapping[str, str],
    notes: Metadata,
    own: Metadata,
    *,
    with_authorization: bool,
) -> Metadata:
    """The metadata of a call to a pipeline: what its caller `sent`, what the upstream's settings
    have `added`, what the gate `notes` of its images, and its `own` (request id, trace)."""
    left_out = {*added, *(name for name, _ in own), *_OF_GRPC_THAT_PASS}
    if "traceparent" in left_out:
        left_out.add("tracestate")
    if not with_authorization:
        left_out.add("authorization")
    return (*passing(sent, without=left_out), *added.items(), *notes, *own)


def notes(verdicts: Sequence[Verdict]) -> Metadata:
    """Verdicts as metadata; of several images their values in order, with commas between. Lists
    that are too long for metadata are left out whole."""
    if not verdicts:
        return ()
    first = verdicts[0]  # task and predictor are the same for all
    told = {
        "decision": ",".join(str(verdict.decision) for verdict in verdicts),
        "mode": ",".join(str(verdict.mode) for verdict in verdicts),
        "task": first.task,
    }
    if any(verdict.utility is not None for verdict in verdicts):
        told["utility"] = ",".join(
            "" if verdict.utility is None else f"{verdict.utility:.6f}" for verdict in verdicts
        )
    if any(verdict.mode is Mode.SHADOW for verdict in verdicts):
        told["judgement"] = ",".join(str(verdict.judgement or "") for verdict in verdicts)
    if first.predictor is not None:
        told["predictor-version"] = first.predictor.version
    if len(verdicts) > 1:
        told = {name: text for name, text in told.items() if len(text) <= _MOST_TEXT}
    return tuple((PREFIX + name, _printable(text)) for name, text in told.items())


def _printable(text: str) -> str:
    """As gRPC takes it: ASCII, no control characters."""
    text = text.translate(_NO_CONTROLS)
    return text.encode("ascii", "backslashreplace").decode()[:_MOST_TEXT].strip()
