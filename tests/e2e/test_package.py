"""What `pip install .` brings: everything that the service needs, and no torch."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from utility_gate.predictor import embedded_tasks

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation",
         "--wheel-dir", str(folder), str(ROOT)],
        check=True, timeout=120,
    )  # fmt: skip
    return zipfile.ZipFile(next(folder.glob("*.whl")))


def test_the_wheel_holds_every_module_and_the_embedded_predictor(wheel: zipfile.ZipFile) -> None:
    held = set(wheel.namelist())
    for package in ("cli", "labelers", "pipelines", "server", "serving", "utility_gate"):
        for path in (ROOT / package).rglob("*.py"):
            assert str(path.relative_to(ROOT)) in held
    for name in (
        *(f"default/{task}/{name}" for task in embedded_tasks()
          for name in ("model.onnx", "model.int8.onnx", "card.json")),
        *(f"training/presets/{name}.toml" for name in ("best", "embedded", "paper", "pipeline")),
        "v1/gate_pb2.pyi", "v1/gate_pb2_grpc.pyi", "py.typed",
        "inference/open_inference_pb2.pyi", "inference/open_inference_pb2_grpc.pyi",
    ):  # fmt: skip
        assert f"utility_gate/{name}" in held
    assert not [name for name in held if name.startswith(("tests/", "proto/", "tools/"))]


def test_installing_the_service_brings_no_torch(wheel: zipfile.ZipFile) -> None:
    metadata = next(name for name in wheel.namelist() if name.endswith("METADATA"))
    lines = wheel.read(metadata).decode().splitlines()
    required = [line for line in lines if line.startswith("Requires-Dist") and "extra" not in line]
    assert any("onnxruntime" in line for line in required)
    for heavy in ("torch", "lightning", "pyarrow", "scikit"):
        assert not [line for line in required if heavy in line]
