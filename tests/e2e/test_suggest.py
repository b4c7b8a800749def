"""The RPC Suggest: the library's answer, by the same line, limits and errors as all images."""

from __future__ import annotations

import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from server.gate import Gate
from serving import otel
from serving.keys import digest
from tests.conftest import ColdGate, RunningGate, encode
from utility_gate.client import AsyncGateClient, GateClient
from utility_gate.errors import (
    GateTimeoutError,
    GateUnavailableError,
    ImageTooLargeError,
    InputError,
    NotAnImageError,
    UnknownTaskError,
)
from utility_gate.predictor import Look, UtilityPredictor
from utility_gate.suggest import suggest
from utility_gate.types import AdviceKind, Decision
from utility_gate.v1 import gate_pb2 as pb
from utility_gate.v1 import gate_pb2_grpc as pb_grpc

Start = Callable[..., RunningGate]

BRIGHT = encode(np.full((128, 160, 3), 200, np.uint8), "PNG")
DARK = encode(np.full((128, 160, 3), 10, np.uint8), "PNG")
RUNS = 9
"""Judgements that `BRIGHT` costs: as it came, and at every quality of the ladder."""


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """When the gate looked at images; each look takes 30 ms."""
    times: list[float] = []
    look = Gate._look

    def slow(gate: Gate, data: bytes, task: str) -> Look:
        times.append(time.monotonic())
        time.sleep(0.03)
        return look(gate, data, task)

    monkeypatch.setattr(Gate, "_look", slow)
    return times


async def test_the_gate_suggests_what_the_library_does(
    gate: RunningGate, client: GateClient, brightness_predictor: Path, photo: np.ndarray
) -> None:
    predictor = UtilityPredictor.load(brightness_predictor)
    image = encode((photo // 2 + 128).astype(np.uint8), "PNG")
    expected = suggest(predictor, image)
    assert expected.chosen is not None
    assert client.suggest(image) == expected
    small = client.suggest(image, max_side=100, task="general")
    assert (small.width, small.height) == (100, 75)
    assert small == suggest(predictor, image, max_side=100)
    strict = client.suggest(image, utility=0.99)
    assert strict == suggest(predictor, image, utility=0.99) != expected
    async with AsyncGateClient(gate.target) as other:
        assert await other.suggest(image) == expected
        assert await other.suggest(image, utility=0.99, max_side=100) == suggest(
            predictor, image, utility=0.99, max_side=100
        )


def test_a_suggestion_is_one_image_and_no_verdict(gate: RunningGate, client: GateClient) -> None:
    suggestion = client.suggest(BRIGHT)
    assert suggestion.chosen is not None
    assert suggestion.chosen.quality == 20
    assert len(suggestion.curve) == RUNS - 1
    assert gate.metric("utility_gate_images_total", method="Suggest", code="OK") == 1
    assert gate.metric("utility_gate_requests_total", method="Suggest", code="OK") == 1
    assert gate.metric("utility_gate_infer_duration_seconds_count", task="general") == RUNS
    assert gate.metric("utility_gate_utility_count", task="general") == 0
    assert gate.metric("utility_gate_image_bytes_count") == 0


def test_an_image_that_is_not_useful_gets_advice(client: GateClient) -> None:
    suggestion = client.suggest(DARK)
    assert suggestion.chosen is None
    assert suggestion.curve == ()
    assert suggestion.utility is not None
    assert suggestion.utility < 0.1
    assert AdviceKind.BRIGHTER in {one.kind for one in suggestion.advice}


def test_it_is_asked_whatever_the_mode_and_never_falls_back(start_gate: Start) -> None:
    gate = start_gate(modes={"general": "OFF"}, fail_open=["general"])
    with GateClient(gate.target, on_failure="open") as client:
        assert client.suggest(DARK).chosen is None
        with pytest.raises(NotAnImageError):
            client.suggest(b"junk")
    with (
        GateClient("127.0.0.1:1", on_failure="open") as nobody,
        pytest.raises((GateUnavailableError, GateTimeoutError)),
    ):
        nobody.suggest(BRIGHT, timeout=0.5)


def test_what_cannot_be_judged_is_named_and_counted(start_gate: Start) -> None:
    gate = start_gate(max_image_pixels=25_000)
    with GateClient(gate.target) as client:
        with pytest.raises(NotAnImageError):
            client.suggest(b"junk")
        with pytest.raises(ImageTooLargeError, match="25000 pixels"):
            client.suggest(encode(np.zeros((200, 200, 3), np.uint8), "PNG"))
        with pytest.raises(UnknownTaskError, match="general"):
            client.suggest(BRIGHT, task="moon")
        with pytest.raises(InputError, match="utility in"):
            client.suggest(BRIGHT, utility=1.5)
        assert client.suggest(BRIGHT).chosen
    name = "utility_gate_images_total"
    assert gate.metric(name, method="Suggest", code="INVALID_ARGUMENT") == 4
    for error in ("NotAnImageError", "ImageTooLargeError", "UnknownTaskError"):
        assert gate.metric("utility_gate_rejected_inputs_total", error=error) == 1


def test_until_it_is_warm_there_are_no_suggestions(cold_gate: ColdGate) -> None:
    with grpc.insecure_channel(cold_gate.target) as channel:
        stub = pb_grpc.UtilityGateServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.Suggest(pb.SuggestRequest(image=BRIGHT), timeout=1)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    cold_gate.warm_up()


def test_a_key_owes_what_a_suggestion_costs(start_gate: Start, tmp_path: Path) -> None:
    keys = {name: secrets.token_urlsafe(32) for name in ("meter", "free")}
    file = tmp_path / "keys.toml"
    limit = "rate = 20\nburst = 2\n"
    file.write_text(
        f'[meter]\nsha256 = "{digest(keys["meter"])}"\n{limit}'
        f'[free]\nsha256 = "{digest(keys["free"])}"\n'
    )
    gate = start_gate(api_keys=file)
    with GateClient(gate.target, api_key=keys["meter"]) as meter:
        # Room for two images is room for a suggestion, whatever it costs.
        assert meter.suggest(BRIGHT).chosen
        with grpc.insecure_channel(gate.target) as channel:
            stub = pb_grpc.UtilityGateServiceStub(channel)
            bearer = (("authorization", f"Bearer {keys['meter']}"),)
            for call, request in (
                (stub.Assess, pb.AssessRequest(image=BRIGHT)),
                (stub.Suggest, pb.SuggestRequest(image=BRIGHT)),
            ):
                with pytest.raises(grpc.RpcError) as caught:
                    call(request, timeout=5, metadata=bearer)
                assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        with GateClient(gate.target, api_key=keys["free"]) as free:
            assert free.suggest(BRIGHT).chosen
            assert free.assess(BRIGHT).decision is Decision.USEFUL
        # It owes about nine images, which is less than half a second; the client waits for it.
        assert meter.assess(BRIGHT).decision is Decision.USEFUL
    assert gate.metric("utility_gate_rate_limited_total", key="meter") >= 2


def test_others_are_answered_while_a_suggestion_is_made(
    start_gate: Start, looks: list[float]
) -> None:
    gate = start_gate(workers=1)
    with GateClient(gate.target) as client, ThreadPoolExecutor(1) as pool:
        making = pool.submit(client.suggest, BRIGHT)
        while len(looks) < 2:
            time.sleep(0.005)
        assert client.assess(BRIGHT).decision is Decision.USEFUL
        assert not making.done()
        assert making.result(10).chosen
    assert len(looks) == RUNS + 1


def test_one_suggestion_too_many_is_told_when_to_come_again(
    start_gate: Start, looks: list[float]
) -> None:
    gate = start_gate(workers=1)
    with grpc.insecure_channel(gate.target) as channel:
        stub = pb_grpc.UtilityGateServiceStub(channel)
        request = pb.SuggestRequest(image=BRIGHT)
        first = stub.Suggest.future(request, timeout=10)
        while not looks:
            time.sleep(0.005)
        with pytest.raises(grpc.RpcError) as caught:
            stub.Suggest(request, timeout=5)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "at most 1 suggestions at a time" in caught.value.details()
        assert first.result().suggestion.found
        assert stub.Suggest(request, timeout=10).suggestion.found  # its place is free again
    assert gate.metric("utility_gate_shed_total") == 1


def test_who_gives_up_is_not_judged_for(start_gate: Start, looks: list[float]) -> None:
    gate = start_gate(workers=1)
    with grpc.insecure_channel(gate.target) as channel:
        stub = pb_grpc.UtilityGateServiceStub(channel)
        call = stub.Suggest.future(pb.SuggestRequest(image=BRIGHT), timeout=10)
        while len(looks) < 2:
            time.sleep(0.005)
        call.cancel()
        time.sleep(0.3)
    assert len(looks) < RUNS - 2
    name = "utility_gate_images_total"
    assert gate.metric(name, method="Suggest", code="CANCELLED") == 1


def test_a_deadline_ends_it(start_gate: Start, looks: list[float]) -> None:
    gate = start_gate(workers=1)
    with GateClient(gate.target) as client, pytest.raises(GateTimeoutError):
        client.suggest(BRIGHT, timeout=0.15)
    time.sleep(0.2)
    assert len(looks) < RUNS
    name = "utility_gate_images_total"
    assert gate.metric(name, method="Suggest", code="DEADLINE_EXCEEDED") == 1


def test_every_judgement_has_its_span(start_gate: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    exporter = InMemorySpanExporter()
    monkeypatch.setattr(otel, "OTLPSpanExporter", lambda endpoint: exporter)
    gate = start_gate(trace_endpoint="http://127.0.0.1:9")
    with GateClient(gate.target) as client:
        client.suggest(BRIGHT)
    gate.server._tracer._provider.force_flush()
    names = Counter(span.name for span in exporter.get_finished_spans())
    assert names.pop("utility_gate.v1.UtilityGateService/Suggest") == 1
    assert names == dict.fromkeys(("image", "queue", "decode", "infer"), RUNS)


def test_a_suggestion_under_way_is_finished_when_the_gate_drains(
    start_gate: Start, looks: list[float]
) -> None:
    gate = start_gate(workers=1)
    with grpc.insecure_channel(gate.target) as channel:
        stub = pb_grpc.UtilityGateServiceStub(channel)
        call = stub.Suggest.future(pb.SuggestRequest(image=BRIGHT), timeout=10)
        while len(looks) < 2:
            time.sleep(0.005)
        stopping = threading.Thread(target=gate.stop)
        stopping.start()
        assert call.result().suggestion.found
        stopping.join(10)
