"""Messages are looked over before they are parsed: many tiny elements cost many times their bytes.

A protobuf of nothing but empty submessages takes some forty times its size in memory. So its tags
are walked first, and a message with more elements than any honest one has is refused.
"""

from __future__ import annotations

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from utility_gate.errors import InputError

MOST_ELEMENTS = 2_000
"""Fields of all depths, and bytes of packed numbers. A request of sixteen images has some fifty."""

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_GROUPS = (3, 4)
_PLAIN = (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES)


def check_elements(message: bytes, descriptor: Descriptor) -> None:
    """Refuse a message that would be far larger in memory than it is on the wire.

    Takes time by the number of elements, up to `MOST_ELEMENTS`, whatever the message's size. What
    is no protobuf at all passes: the parser says so better. No message of the contracts holds
    itself, so depth is bounded by them.

    Raises:
        InputError: if it has too many elements.
    """
    _walk(memoryview(message), descriptor, MOST_ELEMENTS)


def _walk(message: memoryview, descriptor: Descriptor | None, left: int) -> int:
    """What is left of the budget after this message."""
    at = 0
    while at < len(message):
        left -= 1
        tag, at = _varint(message, at)
        kind, number = tag & 7, tag >> 3
        if kind == _BYTES:
            length, at = _varint(message, at)
            field = descriptor.fields_by_number.get(number) if descriptor is not None else None
            left -= _inside(message[at : at + length], field, left)
            at += length
        elif kind == _VARINT:
            _, at = _varint(message, at)
        elif kind in (_FIXED64, _FIXED32):
            at += 8 if kind == _FIXED64 else 4
        elif kind in _GROUPS:
            # The parser skips groups that it does not know, and builds what stands behind them.
            raise InputError("expected a message of the contract, got one with groups")
        else:
            return left  # no tag at all: the parser refuses the message
        if left < 0:
            raise InputError(
                f"expected a message of at most {MOST_ELEMENTS} elements, got more; send fewer at "
                "a time"
            )
    return left


def _inside(payload: memoryview, field: FieldDescriptor | None, left: int) -> int:
    """What the content of a field of bytes takes of the budget."""
    if field is None or field.type in _PLAIN:
        return 0
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        return left - _walk(payload, field.message_type, left)
    return len(payload)  # packed numbers


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """A number and where it ends; beyond the end of the message where it is cut off."""
    value = shift = 0
    while at < len(message) and shift < 70:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    return value, len(message)
