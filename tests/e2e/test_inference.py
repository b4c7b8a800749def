"""The Open Inference Protocol, asked by the real tritonclient (tests/e2e/ask_triton.py)."""

from __future__ import annotations

import base64
import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from server.inference import NAME
from serving.keys import digest
from tests.conftest import ColdGate, RunningGate, encode
from tests.e2e.test_server import plain
from utility_gate import __version__
from utility_gate.client import GateClient
from utility_gate.inference import open_inference_pb2 as pb

SCRIPT = Path(__file__).with_name("ask_triton.py")


def ask(target: str, *calls: list[Any]) -> list[Any]:
    asked = json.dumps({"target": target, "calls": calls})
    done = subprocess.run(
        [sys.executable, str(SCRIPT)], input=asked, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    answers: list[Any] = json.loads(done.stdout)
    return answers


def text(image: bytes) -> str:
    return base64.b64encode(image).decode()


def test_the_server_and_its_models_present_themselves(gate: RunningGate) -> None:
    live, ready, model, default, metadata, described = ask(
        gate.target, ["live"], ["ready"], ["model_ready", "general"], ["model_ready", "", "7"],
        ["metadata"], ["model_metadata", "general"],
    )  # fmt: skip
    assert [live, ready, model, default] == [True] * 4
    assert metadata == {"name": "utility-gate", "version": __version__}
    assert (described["name"], described["versions"]) == ("general", ["7"])
    assert described["inputs"] == [{"name": "image", "datatype": "BYTES", "shape": ["-1"]}]
    assert {output["name"]: output["datatype"] for output in described["outputs"]} == {
        "utility": "FP32", "decision": "BYTES", "judgement": "BYTES", "reasons": "BYTES",
        "advice": "BYTES", "predictor_version": "BYTES",
    }  # fmt: skip
    with grpc.insecure_channel(gate.target) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        answer = health.Check(health_pb2.HealthCheckRequest(service=NAME), timeout=5)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
        listing = reflection_pb2.ServerReflectionRequest(list_services="")
        (listed,) = reflection.ServerReflectionInfo(iter([listing]), timeout=5)
        assert NAME in {service.name for service in listed.list_services_response.service}


def test_images_are_judged_as_the_gate_s_own_client_has_them_judged(
    gate: RunningGate, client: GateClient, jpeg: bytes
) -> None:
    images = [plain(20), jpeg, plain(128), plain(200), encode(np.zeros((9, 40, 3), np.uint8))] * 3
    verdicts = [client.assess(image) for image in images]
    sent = [text(image) for image in images]
    one, raw, column, typed = ask(
        gate.target, ["infer", sent[:1]], ["infer", sent], ["infer", sent, {"column": True}],
        ["infer_typed", sent],
    )  # fmt: skip
    assert raw == column == typed
    assert raw["id"] == "7"
    assert raw["model"] == ["general", "7"]
    assert one["outputs"] == {name: values[:1] for name, values in raw["outputs"].items()}
    answers = zip(*raw["outputs"].values(), strict=True)
    for verdict, answer in zip(verdicts, answers, strict=True):
        utility, decision, judgement, reasons, advice, version = answer
        assert utility == float(np.float32(verdict.utility))
        assert (decision, judgement) == (verdict.decision, verdict.judgement)
        assert version == verdict.predictor.version
        assert [tuple(reason.values()) for reason in json.loads(reasons)] == [
            (reason.kind, reason.value, reason.threshold, reason.message)
            for reason in verdict.reasons
        ]
        assert [tuple(one.values()) for one in json.loads(advice)] == [
            (one.kind, one.value, one.message) for one in verdict.advice
        ]
    assert gate.metric("utility_gate_requests_total", method="ModelInfer", code="OK") == 4
    assert gate.metric("utility_gate_images_total", method="ModelInfer", code="OK") == 46


def test_only_the_outputs_that_are_asked_for_come_and_in_that_order(gate: RunningGate) -> None:
    image, outputs = text(plain(200)), ["decision", "utility"]
    asked, unknown = ask(
        gate.target, ["infer", [image], {"outputs": outputs}],
        ["infer", [image], {"outputs": ["mood"]}],
    )  # fmt: skip
    assert list(asked["outputs"]) == outputs
    assert asked["outputs"]["decision"] == ["USEFUL"]
    assert unknown["status"] == "StatusCode.INVALID_ARGUMENT"
    assert "'mood'" in unknown["message"]


def test_what_cannot_be_judged_is_named(start_gate: Callable[..., RunningGate]) -> None:
    gate = start_gate(max_images_per_request=3, max_image_bytes=10_000)
    good, bad = text(plain(200)), text(b"no image")
    for_model, for_version, ready, described, bad_image, too_large, too_many, none = ask(
        gate.target, ["infer", [good], "moon"], ["infer", [good], "general", "8"],
        ["model_ready", "moon"], ["model_metadata", "general", "8"], ["infer", [good, bad, good]],
        ["infer", [text(bytes(10_001))]], ["infer", [good] * 4], ["infer", []],
    )  # fmt: skip
    for answer in (for_model, for_version, ready, described):
        assert answer["status"] == "StatusCode.NOT_FOUND"
    assert "'moon'" in for_model["message"]
    assert "version 7" in for_version["message"]
    for answer in (bad_image, too_large, too_many, none):
        assert answer["status"] == "StatusCode.INVALID_ARGUMENT"
    assert bad_image["message"].startswith("image 1: ")
    assert "10000 bytes" in too_large["message"]
    assert "1 to 3 images, got [4]" in too_many["message"]
    assert "got [0]" in none["message"]
    name = "utility_gate_requests_total"
    assert gate.metric(name, method="ModelInfer", code="NOT_FOUND") == 2
    assert gate.metric(name, method="ModelInfer", code="INVALID_ARGUMENT") == 4


def test_a_request_is_not_shed_by_its_own_images(start_gate: Callable[..., RunningGate]) -> None:
    gate = start_gate(workers=1, max_waiting=0)
    (answer,) = ask(gate.target, ["infer", [text(plain(200))] * 16])
    assert answer["outputs"]["decision"] == ["USEFUL"] * 16


def test_an_image_that_was_not_judged_has_no_utility(
    start_gate: Callable[..., RunningGate],
) -> None:
    gate = start_gate(modes={"general": "OFF"})
    (answer,) = ask(gate.target, ["infer", [text(plain(20))]])
    outputs = answer["outputs"]
    assert math.isnan(outputs["utility"][0])
    assert outputs["decision"] == ["USEFUL"]
    assert outputs["reasons"] == ["[]"]


def test_until_it_is_warm_it_is_live_and_not_ready(cold_gate: ColdGate) -> None:
    live, ready, model, metadata, described, judged = ask(
        cold_gate.target, ["live"], ["ready"], ["model_ready", "general"], ["metadata"],
        ["model_metadata", "general"], ["infer", [text(plain(9))]],
    )  # fmt: skip
    cold_gate.warm_up()
    assert [live, ready, model] == [True, False, False]
    assert metadata["name"] == "utility-gate"
    assert described["status"] == judged["status"] == "StatusCode.UNAVAILABLE"


def test_it_asks_for_the_key_and_keeps_to_its_limit(
    start_gate: Callable[..., RunningGate], tmp_path: Path
) -> None:
    keys = tmp_path / "keys.toml"
    keys.write_text(f'[shop]\nsha256 = "{digest("secret")}"\nrate = 0.001\nburst = 2\n')
    gate = start_gate(api_keys=keys)
    image, key = text(plain(200)), {"authorization": "Bearer secret"}
    without, live, two, third = ask(
        gate.target, ["infer", [image]], ["live"], ["infer", [image] * 2, {"headers": key}],
        ["infer", [image], {"headers": key}],
    )  # fmt: skip
    assert without["status"] == live["status"] == "StatusCode.UNAUTHENTICATED"
    assert two["outputs"]["decision"] == ["USEFUL"] * 2
    assert third["status"] == "StatusCode.RESOURCE_EXHAUSTED"


def test_a_message_of_another_contract_is_invalid(gate: RunningGate) -> None:
    with grpc.insecure_channel(gate.target) as channel:
        call = channel.unary_unary(f"/{NAME}/ModelInfer")
        with pytest.raises(grpc.RpcError) as caught:
            call(b"\xff\xff\xff\xff", timeout=5)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_the_contract_is_the_protocol_s(gate: RunningGate) -> None:
    (theirs,) = ask(gate.target, ["contract"])
    messages = list(pb.DESCRIPTOR.message_types_by_name.values())
    for message in messages:
        messages.extend(message.nested_types)
        assert {
            field.name: [field.number, field.type, field.is_repeated] for field in message.fields
        } == theirs[message.full_name]
