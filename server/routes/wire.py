"""Protobuf's wire format, walked without being parsed: requests go on as the bytes that they are.

Stricter than parsers are, which differ where a message is not what a serializer writes: what two of
them would read differently is refused, so that the pipeline sees no image that the gate has not.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from utility_gate.errors import InputError

MOST_FIELDS = 20_000
"""Of the messages that lie on the way to the image; walking them takes about 10 ms."""

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_FIXED = {FIXED64: 8, FIXED32: 4}
_GROUPS = (3, 4)
_TAG_BYTES, _VARINT_BYTES = 5, 10


class Part(NamedTuple):
    """One field of a message as it lies there: the whole from `start` to `end`, its content (of
    BYTES without the length before it) from `content`."""

    number: int
    kind: int
    start: int
    content: int
    end: int


class Budget:
    """Fields that may still be walked in one request."""

    def __init__(self, most: int = MOST_FIELDS) -> None:
        self._left = self._most = most

    def spend(self) -> None:
        """Account for one.

        Raises:
            InputError: if there were too many.
        """
        self._left -= 1
        if self._left < 0:
            raise InputError(
                f"expected at most {self._most} fields around the image, got more; send fewer at "
                "a time"
            )


def parts(message: memoryview, budget: Budget) -> Iterator[Part]:
    """The fields of one message, in their order; of submessages only where they lie.

    Raises:
        InputError: if it is no protobuf, or has groups or too many fields.
    """
    at = 0
    while at < len(message):
        budget.spend()
        start = at
        tag, at = varint(message, at, _TAG_BYTES)
        number, kind = tag >> 3, tag & 7
        if number == 0 or tag >= 1 << 32:
            raise InputError("expected a protobuf message, got other bytes")
        content = at
        if kind == BYTES:
            length, content = varint(message, at)
            at = content + length
        elif kind == VARINT:
            _, at = varint(message, at)
        elif kind in _FIXED:
            at += _FIXED[kind]
        elif kind in _GROUPS:
            raise InputError("expected a message without groups, got one")
        else:
            raise InputError("expected a protobuf message, got other bytes")
        if at > len(message):
            raise InputError("expected a whole protobuf message, got one that is cut off")
        yield Part(number, kind, start, content, at)


def varint(message: memoryview, at: int, most: int = _VARINT_BYTES) -> tuple[int, int]:
    """A number of at most `most` bytes, and where it ends.

    Raises:
        InputError: if there is none.
    """
    value = 0
    for index, byte in enumerate(message[at : at + most]):
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value, at + index + 1
    raise InputError("expected a protobuf message, got other bytes")


def tagged(number: int, content: bytes) -> bytes:
    """A field of bytes as it is written."""
    return _to_varint(number << 3 | BYTES) + _to_varint(len(content)) + content


def _to_varint(value: int) -> bytes:
    written = bytearray()
    while value >= 0x80:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)
