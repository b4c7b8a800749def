"""Where the images of a request are, and the request without some of them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from server.routes.wire import BYTES, Budget, Part, parts, tagged
from utility_gate.errors import InputError


@dataclass(frozen=True, slots=True)
class Found:
    """One encoded image; `position` counts the elements of the repeated field, or tensor, that it
    is in."""

    position: int
    data: bytes


class ImageField(Protocol):
    """What is known of a method's requests. Takes and gives their bytes."""

    def find(self, request: bytes, limit: int) -> Sequence[Found]:
        """The images, none if the request has none.

        Raises:
            InputError: if the request is no such message, ambiguous, or has more than `limit`.
        """

    def without(self, request: bytes, positions: Collection[int]) -> bytes:
        """The request less the elements at these positions.

        Raises:
            InputError: if it is then not whole.
        """


@dataclass(frozen=True, slots=True)
class Step:
    """One field on the way to the image: what it is called and its number. `present`: whether it
    can be told from one that was not set; else it is empty then."""

    name: str
    number: int
    repeated: bool
    present: bool


@dataclass(frozen=True, slots=True)
class FieldPath:
    """A path of fields through messages to one of bytes; at most one step is repeated.

    Raises:
        ValueError: if there is no step, or more than one is repeated.
    """

    steps: tuple[Step, ...]

    def __post_init__(self) -> None:
        if not self.steps or sum(step.repeated for step in self.steps) > 1:
            raise ValueError(f"expected steps, one of them repeated at most, got {self.steps!r}")

    def find(self, request: bytes, limit: int) -> list[Found]:
        """See `ImageField.find`."""
        found: list[Found] = []
        self._collect(memoryview(request), 0, Budget(), limit, found)
        return found

    def without(self, request: bytes, positions: Collection[int]) -> bytes:
        """See `ImageField.without`."""
        return self._rebuild(memoryview(request), 0, frozenset(positions))

    def _collect(
        self, message: memoryview, depth: int, budget: Budget, limit: int, found: list[Found]
    ) -> None:
        step = self.steps[depth]
        last = depth == len(self.steps) - 1
        elements = self._elements(message, step, budget)
        if step.repeated and len(elements) > limit:
            raise InputError(
                f"expected at most {limit} elements of {step.name}, got {len(elements)}"
            )
        if not elements and last and not step.present and not step.repeated:
            found.append(Found(0, b""))  # an empty image: judged, and refused, like any other
        for position, part in enumerate(elements):
            content = message[part.content : part.end]
            if last:
                found.append(Found(position, bytes(content)))
                continue
            inside: list[Found] = []
            self._collect(content, depth + 1, budget, limit, inside)
            found += [Found(position, one.data) for one in inside] if step.repeated else inside

    def _elements(self, message: memoryview, step: Step, budget: Budget) -> list[Part]:
        """The occurrences of a step's field.

        Parsers take the last of several, and merge messages; no serializer writes them.
        """
        elements = [
            part
            for part in parts(message, budget)
            if part.number == step.number and part.kind == BYTES
        ]
        if not step.repeated and len(elements) > 1:
            raise InputError(f"expected one {step.name}, got {len(elements)}")
        return elements

    def _rebuild(self, message: memoryview, depth: int, positions: frozenset[int]) -> bytes:
        step = self.steps[depth]
        kept: list[bytes | memoryview] = []
        done = position = 0
        for part in self._elements(message, step, Budget()):
            kept.append(message[done : part.start])
            done = part.end
            if not step.repeated:
                content = message[part.content : part.end]
                kept.append(tagged(step.number, self._rebuild(content, depth + 1, positions)))
            elif position not in positions:
                kept.append(message[part.start : part.end])
            position += step.repeated
        kept.append(message[done:])
        return b"".join(kept)
