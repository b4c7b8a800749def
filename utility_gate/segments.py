"""How an encoded image is put together, seen before a decoder sees it: what would keep one busy for
longer than its pixels do is refused."""

from __future__ import annotations

import re

from utility_gate.errors import CorruptImageError

MAX_SCANS = 100
"""Of a JPEG; progressive encoders write about ten."""

MAX_SEGMENTS = 2_000
"""Of a JPEG, scans and what comes between them included; an ICC profile takes up to 255."""

MAX_JUNK = 1_000
"""Bytes in a row between a JPEG's segments that belong to none."""

MAX_CHUNKS = 50_000
"""Of a PNG; encoders write its data in chunks of 8 KiB and more."""

_JPEG, _PNG = b"\xff\xd8", b"\x89PNG\r\n\x1a\n"
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # inside a scan's data FF is followed by others
_START, _END, _SCAN, _TEMPORARY = 0xD8, 0xD9, 0xDA, 0x01


def check_segments(data: bytes) -> None:
    """Look through a JPEG's segments up to its first end, and through a PNG's chunks: parsing them
    takes time that no number of pixels bounds, most of it in Python. What comes after the end
    (videos, further pictures) is no decoder's concern. Other bytes pass.

    Raises:
        CorruptImageError: if there are too many.
    """
    if data.startswith(_JPEG):
        _check_jpeg(data)
    elif data.startswith(_PNG):
        _check_png(data)


def _check_jpeg(data: bytes) -> None:
    at, segments, scans, scanning = len(_JPEG), 0, 0, False
    while (found := _MARKER.search(data, at)) is not None:
        code = data[found.start() + 1]
        if not scanning and found.start() - at > MAX_JUNK:
            _refuse(MAX_JUNK, "bytes between two segments", found.start() - at)
        if code == _END:
            return
        segments += 1
        if segments > MAX_SEGMENTS:
            _refuse(MAX_SEGMENTS, "segments", segments)
        at = found.end()
        if code in (_START, _TEMPORARY):
            continue
        at += max(2, int.from_bytes(data[at : at + 2]))
        scanning = code == _SCAN
        scans += scanning
        if scans > MAX_SCANS:
            _refuse(MAX_SCANS, "scans", scans)
    if not scanning and len(data) - at > MAX_JUNK:
        _refuse(MAX_JUNK, "bytes between two segments", len(data) - at)


def _check_png(data: bytes) -> None:
    at, chunks = len(_PNG), 0
    while at + 8 <= len(data) and data[at + 4 : at + 8] != b"IEND":
        chunks += 1
        if chunks > MAX_CHUNKS:
            _refuse(MAX_CHUNKS, "chunks", chunks)
        at += 12 + int.from_bytes(data[at : at + 4])


def _refuse(most: int, what: str, got: int) -> None:
    raise CorruptImageError(f"expected at most {most} {what}, got {got} or more; encode it anew")
