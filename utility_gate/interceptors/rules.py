"""Which requests are judged, and what a verdict means for them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable
from typing import Any, Generic, Literal, TypeVar, get_args

from google.protobuf.message import Message

from utility_gate.errors import ConfigError, GateTimeoutError, NotUsefulError
from utility_gate.types import Advice, Decision, Mode, Reason, Verdict

log = logging.getLogger(__name__)

DECISION_KEY = "utility-gate-decision"
MODE_KEY = "utility-gate-mode"
JUDGEMENT_KEY = "utility-gate-judgement"
"""Metadata of a judged call. The mode is there unless it is ENFORCE, the judgement in SHADOW."""

ImageField = str | Callable[[Any], bytes | None]
Review = Literal["pass", "stop"]
Notes = tuple[tuple[str, str], ...]

Gate = TypeVar("Gate")
"""A `GateClient`, or an `AsyncGateClient`."""


class Judging(Generic[Gate]):
    """What every interceptor is made of: a gate to ask, and rules."""

    def __init__(
        self,
        gate: Gate,
        *,
        image_field: ImageField,
        methods: Collection[str] | None = None,
        review: Review = "pass",
        task: str | None = None,
    ) -> None:
        """Raises ConfigError for options that cannot be meant; `Rules` explains them."""
        self._gate = gate
        self._rules = Rules(image_field, methods, review, task)


class Rules:
    """What is judged, and what is stopped.

    `image_field` is where a request holds its encoded image: a dotted path of fields ("image",
    "photo.data") or a function of the request. A request without one (None, or a field that is
    not set, where the contract can tell) goes on unjudged.

    `methods` are the full names ("/package.Service/Method") of the methods that are judged; None
    means all whose requests have the field. Name them: a misspelt field is an error then, where
    otherwise it only judges nothing.

    `review` says whether images between the thresholds "pass" or "stop"; `task` is what to judge
    for, None meaning the client's own.
    """

    def __init__(
        self,
        image_field: ImageField,
        methods: Collection[str] | None = None,
        review: Review = "pass",
        task: str | None = None,
    ) -> None:
        """Raises ConfigError for options that cannot be meant."""
        if isinstance(image_field, str) and not all(image_field.split(".")):
            raise ConfigError(f'expected image_field such as "photo.data", got {image_field!r}')
        if review not in get_args(Review):
            raise ConfigError(f'expected review "pass" or "stop", got {review!r}')
        if isinstance(methods, str) or any(not name.startswith("/") for name in methods or ()):
            raise ConfigError(
                f'expected methods such as ["/package.Service/Method"], got {methods!r}'
            )
        self.field = image_field if isinstance(image_field, str) else "image"
        self.task = task
        self._find = image_field
        self._methods = None if methods is None else frozenset(methods)
        self._review = review
        self._unjudged: set[str] = set()

    def covers(self, method: str) -> bool:
        """Whether requests of a method are looked at."""
        return self._methods is None or method in self._methods

    def image(self, method: str, request: Any) -> bytes | None:
        """The image of a request; None if it holds none.

        Raises:
            ConfigError: if a named method's requests have no such field, or it holds no bytes.
        """
        found = self._read(method, request) if isinstance(self._find, str) else self._find(request)
        if found is None or isinstance(found, bytes):
            return found
        if isinstance(found, bytearray | memoryview):
            return bytes(found)
        raise ConfigError(
            f"expected bytes in {self.field} of {method}, got {type(found).__name__}; give "
            "image_field a path to bytes, or a function of the request that returns them"
        )

    def require(self, verdict: Verdict, left: float | None = None) -> None:
        """Let an image pass, if its call has seconds `left`.

        Raises:
            NotUsefulError: if it is to be stopped.
            GateTimeoutError: if the call is over: whoever sets short deadlines must not get images
                past a gate that fails open.
        """
        if left is not None and left <= 0:
            raise GateTimeoutError("the call's own deadline passed while its image was judged")
        stopped = verdict.decision is Decision.NON_USEFUL
        stopped |= verdict.decision is Decision.REVIEW and self._review == "stop"
        if stopped:
            raise NotUsefulError(
                f"expected an image that a machine can decide on, got one judged "
                f"{verdict.decision}: {explain(verdict)}",
                verdict,
            )

    def _read(self, method: str, request: Any) -> Any:
        value = request
        for name in self.field.split("."):
            if not hasattr(value, name):
                if value is not request and not isinstance(value, Message):
                    raise ConfigError(
                        f"expected a message before {name} of {self.field} in {method}, got a "
                        f"{type(value).__name__}: an image in each of several messages is found by "
                        "a function of the request, or by a route of the gate"
                    )
                return self._without_field(method, request)
            if isinstance(value, Message) and _is_unset(value, name):
                return None
            value = getattr(value, name)
        return value

    def _without_field(self, method: str, request: Any) -> None:
        kind = type(request).__name__
        if self._methods is not None:
            raise ConfigError(
                f"expected a field {self.field} in {method}, got a {kind} without it; correct "
                "image_field, or put this interceptor where requests are decoded"
            )
        if method not in self._unjudged:
            self._unjudged.add(method)
            log.info("%s is not judged: a %s has no field %s", method, kind, self.field)


def explain(verdict: Verdict) -> str:
    """What is wrong with an image, and what to do about it, in one line."""
    told = [reason.message for reason in verdict.reasons] or ["no reason given"]
    return "; ".join([*told, *(advice.message for advice in verdict.advice)])


def to_text(told: Iterable[Advice | Reason]) -> str:
    """For metadata, kinds with their values: "HIGHER_QUALITY=65,LARGER=224"."""
    return ",".join(
        str(one.kind) if one.value is None else f"{one.kind}={one.value:.4g}" for one in told
    )


def notes(verdict: Verdict) -> Notes:
    """A verdict as metadata."""
    told = [(DECISION_KEY, str(verdict.decision))]
    if verdict.mode is not Mode.ENFORCE:
        told.append((MODE_KEY, str(verdict.mode)))
    if verdict.mode is Mode.SHADOW:
        told.append((JUDGEMENT_KEY, str(verdict.judgement)))
    return tuple(told)


def within(timeout: float, left: float | None) -> float:
    """Seconds for the gate: its client's own, or what is left of the judged call."""
    return timeout if left is None else max(0.0, min(timeout, left))


def _is_unset(message: Message, name: str) -> bool:
    field = message.DESCRIPTOR.fields_by_name.get(name)
    return field is not None and field.has_presence and not message.HasField(name)
