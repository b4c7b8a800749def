"""A gRPC caller that speaks HTTP/2 by hand, and may be as rude as it likes."""

from __future__ import annotations

import socket
import struct


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """One HTTP/2 frame (RFC 9113, section 4.1)."""
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + (
        struct.pack(">I", stream) + payload
    )  # fmt: skip


def literal(name: bytes, value: bytes) -> bytes:
    """A header without indexing or Huffman coding (RFC 7541, section 6.2.2)."""
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


def open_call(
    target: str, path: str, message: bytes, *, window: int = 65535, more: bytes = b""
) -> socket.socket:
    """A connection with one call; `window` is what the server may send us unasked, bytes; `more`
    are further headers."""
    host, _, port = target.rpartition(":")
    connection = socket.create_connection((host, int(port)), timeout=10)
    headers = b"".join(
        literal(name, value)
        for name, value in (
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":path", path.encode()),
            (b":authority", b"gate"),
            (b"te", b"trailers"),
            (b"content-type", b"application/grpc"),
        )
    )
    body = b"\0" + struct.pack(">I", len(message)) + message
    connection.sendall(
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
        + frame(4, 0, 0, struct.pack(">HI", 4, window))
        + frame(1, 4, 1, headers + more)
        + frame(0, 1, 1, body)
    )
    return connection
