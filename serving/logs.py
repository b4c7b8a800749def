"""How log lines are written: as text or as JSON, one line each, whatever callers send.

Fields of the request come from `request_context`; a line's own fields are given as `extra`, by
the names in `FIELDS`.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, TextIO

from serving.request_context import RequestContext, current

FIELDS = ("incident", "code", "seconds")
"""What a line may tell besides its message: `log.info(..., extra={"code": "OK"})`."""

_REQUEST_FIELDS = tuple(RequestContext.__dataclass_fields__)
_MOST_MESSAGE, _MOST_TRACEBACK = 4_000, 20_000
_PLAIN = re.compile(r"[\w.:/@+-]+", re.ASCII)


def configure(log_format: str, level: str | int | None, stream: TextIO | None = None) -> None:
    """Make the root logger's handlers on `stream` (stderr) write "text" or "json".

    `level` None leaves the level as it is. Pillow is kept at WARNING: its DEBUG lines hold what
    images hold, EXIF values among them.
    """
    stream = sys.stderr if stream is None else stream
    root = logging.getLogger()
    for handler in root.handlers:
        if isinstance(handler, logging.StreamHandler) and handler.stream is stream:
            equip(handler, log_format)
    if level is not None:
        root.setLevel(level)
    logging.getLogger("PIL").setLevel(logging.WARNING)
    logging.captureWarnings(True)


def equip(handler: logging.Handler, log_format: str) -> None:
    """Make one handler write "text" or "json", with the request's fields."""
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    handler.addFilter(RequestFilter())


class RequestFilter(logging.Filter):
    """Puts the request that is served into the record, in the thread that logs."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record through."""
        record.request = current()
        return True


class TextFormatter(logging.Formatter):
    """For people: a line, its fields in brackets, a traceback indented below it."""

    def format(self, record: logging.LogRecord) -> str:
        """One record; only a traceback takes more than a line."""
        text = f"{self.formatTime(record)} {record.levelname} {record.name}: {_message(record)}"
        fields = " ".join(f"{name}={_quoted(value)}" for name, value in _fields(record))
        if fields:
            text = f"{text} [{fields}]"
        # Indented, so that no line of an exception's message passes for a line of the log.
        below = (f"\n    {_escaped(line)}" for line in _traceback(self, record).split("\n") if line)
        return text + "".join(below)


class JsonFormatter(logging.Formatter):
    """For machines: one JSON object a line, ASCII."""

    def format(self, record: logging.LogRecord) -> str:
        """One record."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {
            "time": time.replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": _clipped(record.getMessage(), _MOST_MESSAGE),
        }
        line.update(_fields(record))
        traceback = _traceback(self, record)
        if traceback:
            line["exception"] = traceback
        return json.dumps(line, default=str)


def _fields(record: logging.LogRecord) -> Iterator[tuple[str, Any]]:
    request = getattr(record, "request", None)
    for source, names in ((request, _REQUEST_FIELDS), (record, FIELDS)):
        for name in names:
            value = getattr(source, name, "")
            if value not in ("", None):
                yield name, value


def _message(record: logging.LogRecord) -> str:
    return _escaped(_clipped(record.getMessage(), _MOST_MESSAGE))


def _traceback(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    text = formatter.formatException(record.exc_info) if record.exc_info else ""
    return _clipped(text, _MOST_TRACEBACK)


def _clipped(text: str, most: int) -> str:
    """Both ends of a text that is too long: a traceback's cause is at its end."""
    if len(text) <= most:
        return text
    half = most // 2
    return f"{text[:half]} … {len(text) - 2 * half} characters … {text[-half:]}"


def _escaped(text: str) -> str:
    """Line breaks, terminal codes and direction marks as Python writes them in strings."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _quoted(value: object) -> str:
    text = str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text)
