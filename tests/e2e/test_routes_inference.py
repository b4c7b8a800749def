"""Routes to servers of the Open Inference Protocol, called by the real tritonclient: one of this
test's own, and MLServer, in a process and an environment of its own (its protobuf is older than the
one that this project is tested with).

To try it with MLServer:
    python3 -m venv mlserver && mlserver/bin/pip install mlserver pillow
    UTILITY_GATE_MLSERVER=mlserver/bin pytest tests/e2e/test_routes_inference.py
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from server.tensors import from_strings, to_strings
from tests.conftest import RunningGate
from tests.e2e.test_inference import ask, text
from tests.e2e.test_routes import BRIGHT, DARK, MEDIUM, ready, wait_for
from tests.processes import free_port
from utility_gate.inference import open_inference_pb2 as pb
from utility_gate.inference import open_inference_pb2_grpc as pb_grpc

SERVICE = "inference.GRPCInferenceService"
MODEL_INFER = f"{SERVICE}/ModelInfer"

MLSERVER = Path(os.environ.get("UTILITY_GATE_MLSERVER", ""))


class Model(pb_grpc.GRPCInferenceServiceServicer):
    """Answers with each image's number of bytes; remembers requests."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.metadata: dict[str, Any] = {}
        self.target = ""

    def ServerReady(self, request: Any, context: Any) -> Any:  # noqa: N802
        return pb.ServerReadyResponse(ready=True)

    def ModelReady(self, request: Any, context: Any) -> Any:  # noqa: N802
        return pb.ModelReadyResponse(ready=request.name == "damage")

    def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.requests.append(request)
        self.metadata = dict(context.invocation_metadata())
        count = request.inputs[0].shape[0]
        raw = bool(request.raw_input_contents)
        if raw:
            images = to_strings(request.raw_input_contents[0], count)
        else:
            images = list(request.inputs[0].contents.bytes_contents)
        sizes = [str(len(image)).encode() for image in images]
        response = pb.ModelInferResponse(model_name="damage", model_version="1", id=request.id)
        output = response.outputs.add(name="size", datatype="BYTES", shape=[count])
        if raw:
            response.raw_output_contents.append(from_strings(sizes))
        else:
            output.contents.bytes_contents.extend(sizes)
        return response

    @contextmanager
    def serve(self) -> Iterator[Model]:
        with ThreadPoolExecutor(4) as pool:
            server = grpc.server(pool)
            pb_grpc.add_GRPCInferenceServiceServicer_to_server(self, server)
            self.target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
            server.start()
            yield self
            server.stop(0).wait()


@pytest.fixture
def model() -> Iterator[Model]:
    with Model().serve() as model:
        yield model


Route = Callable[..., RunningGate]


@pytest.fixture
def route(start_gate: Callable[..., RunningGate]) -> Route:
    def start(target: str, tensor: str = "image", **changes: Any) -> RunningGate:
        judged = {"method": MODEL_INFER, "upstream": "models", "image_field": f"inputs.{tensor}"}
        gate = start_gate(
            upstreams={"models": {"addresses": [target]}},
            routes=[judged | changes, {"method": f"{SERVICE}/*", "upstream": "models"}],
        )
        return ready(gate, SERVICE)

    return start


def stopped(answer: Any) -> bool:
    return bool(answer.get("status") == "StatusCode.FAILED_PRECONDITION")


def sizes(answer: Any) -> list[int]:
    return [int(size) for size in answer["outputs"]["size"]]


@pytest.mark.parametrize("infer", ["infer", "infer_typed"])
def test_only_useful_images_reach_the_model(route: Route, model: Model, infer: str) -> None:
    gate = route(model.target)
    live, model_ready, good, bad, junk = ask(
        gate.target, ["ready"], ["model_ready", "damage"], [infer, [text(BRIGHT)], "damage"],
        ["infer", [text(DARK)], "damage"], ["infer", [text(b"junk")], "damage"],
    )  # fmt: skip
    assert [live, model_ready] == [True, True], "the model's, not the gate's"
    assert sizes(good) == [len(BRIGHT)]
    assert good["model"] == ["damage", "1"]
    assert model.metadata["utility-gate-decision"] == "USEFUL"
    assert stopped(bad)
    assert "NON_USEFUL" in bad["message"]
    assert junk["status"] == "StatusCode.INVALID_ARGUMENT"
    assert len(model.requests) == 1


@pytest.mark.parametrize("infer", ["infer", "infer_typed"])
@pytest.mark.parametrize(
    ("rule", "kept"), [("all", None), ("any", [0, 1, 2]), ("filter", [1, 2])]
)  # fmt: skip
def test_of_several_what_the_route_says(
    route: Route, model: Model, infer: str, rule: str, kept: Any
) -> None:
    gate = route(model.target, images=rule)
    sent = [DARK, BRIGHT, MEDIUM]
    (answer,) = ask(gate.target, [infer, [text(image) for image in sent], "damage"])
    if kept is None:
        assert stopped(answer)
        assert model.requests == []
    else:
        assert sizes(answer) == [len(sent[index]) for index in kept]
        assert model.metadata["utility-gate-decision"] == "NON_USEFUL,USEFUL,REVIEW"


def test_a_model_without_the_tensor_is_none_of_the_gate_s_business(
    route: Route, model: Model
) -> None:
    gate = route(model.target, tensor="photograph")
    (answer,) = ask(gate.target, ["infer", [text(b"words")], "damage"])
    assert sizes(answer) == [5]


SETTINGS = {"debug": False, "parallel_workers": 0, "host": "127.0.0.1"}
MODEL = {"name": "damage", "implementation": "model.ByteCounter", "parameters": {"version": "1"}}
CODE = '''
from mlserver import MLModel
from mlserver.codecs import StringCodec
from mlserver.types import InferenceResponse, ResponseOutput


class ByteCounter(MLModel):
    """Opens each image, and answers with the bytes of its file."""

    async def predict(self, payload):
        import io

        from PIL import Image

        data = payload.inputs[0].data
        images = data.root if hasattr(data, "root") else data
        for image in images:
            Image.open(io.BytesIO(image)).load()
        answers = StringCodec.encode_output("size", [str(len(image)) for image in images])
        return InferenceResponse(model_name=self.name, model_version="1", id=payload.id, outputs=[answers])
'''  # noqa: E501


@contextmanager
def mlserver(folder: Path) -> Iterator[str]:
    """A real MLServer with one model; its gRPC address."""
    ports = {"grpc_port": free_port(), "http_port": free_port(), "metrics_port": free_port()}
    (folder / "settings.json").write_text(json.dumps(SETTINGS | ports))
    (folder / "model-settings.json").write_text(json.dumps(MODEL))
    (folder / "model.py").write_text(CODE)
    log = folder / "log.txt"
    with log.open("w") as output:
        process = subprocess.Popen(
            [str((MLSERVER / "mlserver").resolve()), "start", "."],
            cwd=folder, stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        target = f"127.0.0.1:{ports['grpc_port']}"

        def loaded() -> bool:
            assert process.poll() is None, log.read_text()
            with grpc.insecure_channel(target) as channel:
                try:
                    stub = pb_grpc.GRPCInferenceServiceStub(channel)
                    request = pb.ModelReadyRequest(name="damage")
                    return bool(stub.ModelReady(request, timeout=2).ready)
                except grpc.RpcError:
                    time.sleep(0.2)
                    return False

        wait_for(loaded, 60)
        yield target
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which("mlserver", path=str(MLSERVER)) is None,
    reason="UTILITY_GATE_MLSERVER names no folder with an mlserver; see the head of this file",
)
def test_in_front_of_mlserver(route: Route, tmp_path: Path) -> None:
    with mlserver(tmp_path) as target:
        gate = route(target)
        model_ready, described, good, bad, several = ask(
            gate.target, ["model_ready", "damage"], ["model_metadata", "damage"],
            ["infer", [text(BRIGHT)], "damage"], ["infer", [text(DARK)], "damage"],
            ["infer", [text(BRIGHT), text(MEDIUM)], "damage"],
        )  # fmt: skip
        assert model_ready is True
        assert described["name"] == "damage"
        assert sizes(good) == [len(BRIGHT)]
        assert stopped(bad)
        assert sizes(several) == [len(BRIGHT), len(MEDIUM)]
        upstream = {"upstream": "models", "code": "OK"}
        assert gate.metric("utility_gate_upstream_calls_total", **upstream) >= 4
