"""Log lines: one each, with the request they belong to, whatever callers send."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image

from serving import logs, request_context
from serving.access import AccessLog
from serving.request_context import ID_KEY, RequestContext
from tests.conftest import RunningGate, encode
from utility_gate.v1 import gate_pb2 as pb
from utility_gate.v1 import gate_pb2_grpc as pb_grpc

NASTY = 'x\n2026-01-01 00:00:00,000 ERROR server: forged\r\x1b[31m\u2028\u202e"]} [task=moon]'


class Lines(logging.Handler):
    """The root logger's lines as one of the formats writes them."""

    def __init__(self, log_format: str) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []
        logs.equip(self, log_format)

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))

    @property
    def objects(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.lines]


@pytest.fixture
def listen() -> Iterator[Callable[[str, int], Lines]]:
    root, level, handlers = logging.getLogger(), logging.getLogger().level, []

    def start(log_format: str, at: int = logging.DEBUG) -> Lines:
        handlers.append(Lines(log_format))
        root.addHandler(handlers[-1])
        root.setLevel(at)
        return handlers[-1]

    yield start
    root.setLevel(level)
    for handler in handlers:
        root.removeHandler(handler)


def record(message: str, **extra: object) -> logging.LogRecord:
    made = logging.LogRecord("server.test", logging.INFO, "", 1, message, (), None)
    made.__dict__.update(extra)
    return made


@given(st.text(), st.text(), st.text())
def test_no_text_breaks_or_forges_a_line(message: str, task: str, client: str) -> None:
    request = RequestContext("id-1", client, "Assess", task)
    line = logs.JsonFormatter().format(record(message, request=request))
    assert line.isascii()
    assert line.isprintable()
    told = json.loads(line)
    assert (told["message"], told.get("task", "")) == (message, task)
    text = logs.TextFormatter().format(record(message, request=request))
    assert text.isprintable()
    head, _, fields = text.rpartition(" [")
    assert head.split(" INFO server.test: ")[0].count(" ") == 1
    assert fields.startswith("request_id=id-1 ")


def test_an_exceptions_message_does_not_pass_for_a_line() -> None:
    try:
        raise ValueError(NASTY)
    except ValueError as error:
        made = logging.LogRecord(
            "server", logging.ERROR, "", 1, "incident", (), (ValueError, error, None)
        )
    first, *below = logs.TextFormatter().format(made).split("\n")
    assert first.endswith("ERROR server: incident")
    assert below
    assert all(line.startswith("    ") and line.isprintable() for line in below)
    assert "forged" in json.loads(logs.JsonFormatter().format(made))["exception"]


def test_a_json_line_tells_when_where_and_for_whom() -> None:
    request = RequestContext("id-1", "ipv4:127.0.0.1:5", "Assess", "general", "ab" * 16)
    line = logs.JsonFormatter().format(record("all well", request=request, incident="0815"))
    told = json.loads(line)
    time = told.pop("time")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", time)
    assert datetime.fromisoformat(time).tzinfo is not None
    assert told == {
        "level": "INFO",
        "logger": "server.test",
        "message": "all well",
        "request_id": "id-1",
        "client": "ipv4:127.0.0.1:5",
        "method": "Assess",
        "task": "general",
        "trace_id": "ab" * 16,
        "incident": "0815",
    }
    bare = json.loads(logs.JsonFormatter().format(record("all well")))
    assert set(bare) == {"time", "level", "logger", "message"}


def test_lines_have_an_end() -> None:
    line = logs.TextFormatter().format(record("a" * 100_000 + "the cause"))
    assert len(line) < 5_000
    assert line.endswith("the cause")


@pytest.mark.parametrize(
    ("offered", "kept"),
    [
        ("order-66", True),
        ("x" * 128, True),
        ("x" * 129, False),
        ("", False),
        ("two words", False),
        ("line\nbreak", False),
        ("line\n", False),
        ("tab\t", False),
        ("ümlaut", False),
        (b"bytes", False),
        (None, False),
    ],
)
def test_only_a_sane_id_is_kept(offered: object, kept: bool) -> None:
    chosen = request_context.choose_id(offered)
    assert (chosen == offered) is kept
    assert re.fullmatch(r"[!-~]{1,128}", chosen)


def test_configuring_sets_the_format_and_keeps_pillow_quiet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root, stream = logging.getLogger(), io.StringIO()
    pillow = logging.getLogger("PIL")
    handler, before = logging.StreamHandler(stream), (root.level, pillow.level)
    root.addHandler(handler)
    try:
        logs.configure("json", "DEBUG", stream)
        logging.getLogger("server").debug("hello")
        logging.getLogger("PIL.TiffImagePlugin").debug("GPS position")
    finally:
        logging.captureWarnings(False)
        root.removeHandler(handler)
        root.setLevel(before[0])
        pillow.setLevel(before[1])
    assert json.loads(stream.getvalue())["message"] == "hello"


async def test_many_lines_of_a_kind_become_a_count(listen: Callable[..., Lines]) -> None:
    heard = listen("json", logging.INFO)
    access, code = AccessLog(lines_per_second=2), grpc.StatusCode.UNAVAILABLE
    request_context.enter(RequestContext("id-1"))
    for _ in range(10):
        access.record("Assess", code, 0.001, "starting")
        access.record("Assess", grpc.StatusCode.OK, 0.001)
        access.record("Assess", grpc.StatusCode.INVALID_ARGUMENT, 0.001)
    access.record("GetInfo", code, 0.001, "starting")
    messages = [line["message"] for line in heard.objects]
    assert messages == ["Assess UNAVAILABLE: starting"] * 2 + ["GetInfo UNAVAILABLE: starting"]
    await asyncio.sleep(1.1)
    summary = heard.objects[-1]
    assert summary["message"] == "Assess UNAVAILABLE: … and 8 more"
    assert "request_id" not in summary
    for _ in range(3):
        access.record("Assess", code, 0.001, "starting")
    access.close()
    assert len(heard.lines) == 7
    assert heard.objects[-1]["message"] == "Assess UNAVAILABLE: … and 1 more"


def assess(
    gate: RunningGate, request: pb.AssessRequest, *metadata: tuple[str, str]
) -> tuple[grpc.Call, dict[str, str | bytes]]:
    """The call, ended, and its trailers."""
    with grpc.insecure_channel(gate.target) as channel:
        stub = pb_grpc.UtilityGateServiceStub(channel)
        call = stub.Assess.future(request, timeout=10, metadata=metadata)
        call.exception()
        return call, dict(call.trailing_metadata())


def image() -> bytes:
    return encode(np.full((64, 64, 3), 200, np.uint8), "PNG")


def test_the_callers_id_is_in_every_line_and_comes_back(
    gate: RunningGate, listen: Callable[..., Lines]
) -> None:
    heard = listen("json")
    call, trailers = assess(gate, pb.AssessRequest(image=image()), (ID_KEY, "order-66"))
    assert call.code() is grpc.StatusCode.OK
    assert trailers[ID_KEY] == "order-66"
    (line,) = [line for line in heard.objects if line["logger"] == "serving.access"]
    assert line["message"] == "Assess OK"
    assert (line["request_id"], line["method"], line["code"]) == ("order-66", "Assess", "OK")
    assert "127.0.0.1" in str(line["client"])
    _, trailers = assess(gate, pb.AssessRequest(image=b"junk"), (ID_KEY, "two words"))
    assert re.fullmatch("[0-9a-f]{32}", str(trailers[ID_KEY]))


def test_an_incident_has_the_request_id_in_the_log_and_in_the_answer(
    gate: RunningGate, listen: Callable[..., Lines], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(data: bytes, task: str, mode: object) -> None:
        logging.getLogger("server.gate").warning("about to fail")
        raise RuntimeError(NASTY)

    monkeypatch.setattr(gate.server.current.value, "assess", broken)
    heard = listen("json", logging.INFO)
    call, trailers = assess(gate, pb.AssessRequest(image=b"x"), (ID_KEY, "order-66"))
    assert call.code() is grpc.StatusCode.INTERNAL
    detail = error_details_pb2.ErrorInfo()
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    assert status.details[0].Unpack(detail)
    assert detail.metadata["request_id"] == trailers[ID_KEY] == "order-66"
    in_worker = heard.objects[0]
    assert in_worker["message"] == "about to fail"
    told = detail.metadata["incident"]
    (incident,) = [line for line in heard.objects if line.get("incident") == told]
    assert in_worker["request_id"] == incident["request_id"] == "order-66"
    assert "RuntimeError" in str(incident["exception"])


def test_concurrent_requests_keep_their_ids(
    gate: RunningGate, listen: Callable[..., Lines], monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = gate.server.current.value
    assert inner is not None
    judge, together = inner.assess, threading.Barrier(2)

    def chatty(data: bytes, task: str, mode: object) -> object:
        together.wait(10)
        logging.getLogger("server.gate").info("judging %d", len(data))
        return judge(data, task)

    monkeypatch.setattr(inner, "assess", chatty)
    heard = listen("json", logging.INFO)
    sizes = range(100, 120)

    def ask(size: int) -> None:
        assess(gate, pb.AssessRequest(image=bytes(size)), (ID_KEY, f"size-{size}"))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(ask, sizes))
    told = {line["message"]: line["request_id"] for line in heard.objects}
    assert told == {f"judging {size}": f"size-{size}" for size in sizes}


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_neither_image_bytes_nor_forged_lines_are_logged_at_debug(
    gate: RunningGate, listen: Callable[..., Lines], log_format: str
) -> None:
    secret = "a secret place"
    exif = Image.Exif()
    exif[ExifTags.Base.ImageDescription] = secret  # which Pillow prints at DEBUG
    pixels = np.full((64, 64, 3), 200, np.uint8)
    pictures = [
        encode(pixels, "JPEG", exif=exif.tobytes()),
        encode(pixels, "PNG", exif=exif.tobytes()),
        encode(pixels, "JPEG", exif=exif.tobytes())[:-40],
        secret.encode() * 10,
    ]
    assert all(secret.encode() in data for data in pictures)
    logging.getLogger("PIL").setLevel(logging.WARNING)  # as `configure` does
    heard = listen(log_format)
    for data in pictures:
        assess(gate, pb.AssessRequest(image=data, task=""), (ID_KEY, "a]x=[b"))
    assess(gate, pb.AssessRequest(image=pictures[0], task=NASTY))
    said = "\n".join(heard.lines)
    assert "Assess OK" in said
    assert "moon" in said, "the task is told, escaped"
    for data in (secret, repr(pictures[0][:8])[2:-1], repr(pictures[1][:8])[2:-1]):
        assert data not in said
    for line in heard.lines:
        assert line.isprintable()
        assert re.match(r"\d{4}-\d\d-\d\d [\d:,]+ [A-Z]+ [\w.]+: |\{", line)
        assert not re.match(r".*ERROR server: forged.* \[request_id=a", line)
