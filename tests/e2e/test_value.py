"""`utility-gate value` as a user runs it, and every kind of pipeline that it can ask."""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cli.value_inference import to_class
from cli.value_pipelines import TimedPipeline, open_pipeline
from pipelines.car_model.app import CarModelServer, CarModelSettings
from pipelines.damage.app import DamageServer, DamageSettings
from server.tensors import from_strings
from tests.checkpoints import BLUE, GREEN, GREY, RED, plain, save_car_model, save_damage
from tests.conftest import RunningGate, RunningService, encode
from tests.networks import save_colour_network, write_entries
from utility_gate.errors import ConfigError, NetworkError
from utility_gate.images import decode
from utility_gate.inference import open_inference_pb2 as pb

CLI = [sys.executable, "-m", "cli.main", "value"]
COLOURS = {"red": RED, "green": GREEN, "blue": BLUE}


def value(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*CLI, *map(str, arguments)], capture_output=True, text=True, timeout=120, env=os.environ
    )


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Photographs of one colour, their truth, and a network that tells colours apart."""
    rows = ["path,class_index"]
    for number in range(6):
        name = list(COLOURS)[number % 3]
        pixels = plain(COLOURS[name], 64 + number, 64)
        pixels[: 8 * number] = 250 if number < 3 else 5
        (tmp_path / f"{number}.png").write_bytes(encode(pixels, "PNG"))
        rows.append(f"{number}.png,{number % 3}")
    (tmp_path / "truth.csv").write_text("\n".join(rows))
    save_colour_network(tmp_path / "colours.onnx")
    write_entries(tmp_path, ["colours"])
    return tmp_path


def test_a_run_leaves_tables_a_picture_and_every_copy(
    data: Path, brightness_predictor: Path
) -> None:
    arguments = (
        "--truth", data / "truth.csv", "--images", data, "--side", "all", "--qualities", "90,5",
        "--pipeline", "classifier", "--networks", data / "networks.toml", "--network", "colours",
        "--predictor", brightness_predictor, "--out", data / "out",
    )  # fmt: skip
    done = value(*arguments)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("# brightness 7 before colours\n\n12 copies of 6 photographs")
    assert done.stdout == (data / "out" / "value.md").read_text()
    table = json.loads((data / "out" / "value.json").read_text())
    assert table["copies"] == 12
    assert table["accuracy"]["value"] == 1.0  # colours survive compression
    assert 0 < table["passed"]["value"] < 1
    assert table["cost"]["pipeline_ms"] > 0
    assert decode((data / "out" / "value.png").read_bytes()).format == "PNG"
    with (data / "out" / "copies.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {(row["path"], row["quality"]) for row in rows} == {
        (f"{number}.png", quality) for number in range(6) for quality in ("90", "5")
    }
    again = value(*arguments)
    assert again.returncode == 1
    assert "expected an empty or new folder" in again.stderr


def test_a_running_gate_may_be_asked(data: Path, gate: RunningGate) -> None:
    done = value(
        "--truth", data / "truth.csv", "--images", data, "--side", "all", "--limit", "2",
        "--qualities", "50", "--pipeline", "classifier", "--networks", data / "networks.toml",
        "--network", "colours", "--target", gate.target, "--out", data / "out",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "2 copies of 2 photographs" in done.stdout
    assert gate.metric("utility_gate_requests_total", method="Assess", code="OK") > 2


def options(kind: str, **given: Any) -> argparse.Namespace:
    values: dict[str, Any] = dict.fromkeys(
        ("networks", "network", "model", "pipeline_target", "classes")
    )
    values |= {"pipeline": kind, "input": "image", "output": "probabilities"}
    return argparse.Namespace(**(values | given))


@contextmanager
def opened(kind: str, **given: Any) -> Iterator[TimedPipeline]:
    with closing(open_pipeline(options(kind, **given))) as pipeline:
        yield pipeline


def said(pipeline: TimedPipeline, *colours: tuple[int, int, int]) -> list[str]:
    decided = [pipeline.decide(encode(plain(colour), "PNG")) for colour in colours]
    assert all(one.milliseconds > 0 for one in decided)
    return [one.label for one in decided]


def test_a_classifier(data: Path) -> None:
    with opened("classifier", networks=data / "networks.toml", network="colours") as pipeline:
        assert said(pipeline, RED, GREEN, BLUE) == ["0", "1", "2"]
        assert pipeline.name == "colours"
        assert pipeline.columns[0] == "class_index"


@pytest.fixture
def serve() -> Iterator[Callable[[Any], str]]:
    running: list[RunningService] = []

    def start(server: Any) -> str:
        running.append(RunningService(server))
        return running[-1].target

    yield start
    for service in running:
        service.stop()


@pytest.mark.parametrize("at", ["here", "there"])
def test_the_car_model_pipeline(at: str, tmp_path: Path, serve: Callable[[Any], str]) -> None:
    folder = str(save_car_model(tmp_path))
    where = {"model": folder}
    if at == "there":
        settings = CarModelSettings(port=0, web_port=0, workers=1, drain_seconds=0, model=folder)
        where = {"pipeline_target": serve(CarModelServer(settings))}
    with opened("car_model", **where) as pipeline:
        assert said(pipeline, GREEN, BLUE) == ["BMW M3 Coupe 2012", "no car"]


@pytest.mark.parametrize("at", ["here", "there"])
def test_the_damage_pipeline(at: str, tmp_path: Path, serve: Callable[[Any], str]) -> None:
    folder = str(save_damage(tmp_path))
    where = {"model": folder}
    if at == "there":
        settings = DamageSettings(port=0, web_port=0, workers=1, drain_seconds=0, model=folder)
        where = {"pipeline_target": serve(DamageServer(settings))}
    with opened("damage_type", **where) as pipeline:
        assert said(pipeline, RED, GREEN, GREY) == ["door_scratch", "door_dent", "none"]
    with opened("damage_severity", **where) as pipeline:
        assert said(pipeline, RED) == ["severe"]


def test_a_model_of_the_open_inference_protocol(gate: RunningGate) -> None:
    # The gate is one itself, and its decision a class.
    with opened(
        "inference", pipeline_target=gate.target, model="general", output="decision"
    ) as pipeline:
        assert said(pipeline, (220, 220, 220), (5, 5, 5)) == ["USEFUL", "NON_USEFUL"]
        with pytest.raises(NetworkError, match="failed with INVALID_ARGUMENT"):
            pipeline.decide(b"junk")
    with opened(
        "inference", pipeline_target=gate.target, model="general", output="utility"
    ) as pipeline:
        assert said(pipeline, RED) == ["0"]  # the likeliest of one


def test_probabilities_become_classes_in_every_form(tmp_path: Path) -> None:
    names = ("cat", "dog", "newt")
    typed = pb.ModelInferResponse()
    tensor = typed.outputs.add(name="p", datatype="FP32", shape=[1, 3])
    tensor.contents.fp32_contents.extend([0.1, 0.2, 0.7])
    assert to_class(typed, "p", ()) == "2"
    assert to_class(typed, "p", names) == "newt"
    for datatype, dtype in (("FP32", "<f4"), ("FP64", "<f8")):
        raw = pb.ModelInferResponse()
        raw.outputs.add(name="other", datatype="BYTES", shape=[1])
        raw.outputs.add(name="p", datatype=datatype, shape=[1, 3])
        raw.raw_output_contents.extend(
            [from_strings([b"newt"]), np.array([0.1, 0.8, 0.1], dtype).tobytes()]
        )
        assert to_class(raw, "p", names) == "dog"
        assert to_class(raw, "other", ()) == "newt"
    for content in (from_strings([b"cat", b"dog"]), from_strings([b"\xff"]), b"cat"):
        raw.raw_output_contents[0] = content
        with pytest.raises(NetworkError, match="output 'other': expected one class as text"):
            to_class(raw, "other", ())
    raw.raw_output_contents[1] = b"123"
    with pytest.raises(NetworkError, match="expected FP64, got 3 bytes of raw contents"):
        to_class(raw, "p", names)
    with pytest.raises(NetworkError, match="expected an output 'q', got p"):
        to_class(typed, "q", ())
    with pytest.raises(NetworkError, match="expected 2 probabilities, got 3"):
        to_class(typed, "p", ("a", "b"))
    tensor.datatype = "INT8"
    with pytest.raises(NetworkError, match="FP32, FP64 or BYTES, got INT8"):
        to_class(typed, "p", ())


def test_a_pipeline_that_is_gone_is_named() -> None:
    with (
        opened("car_model", pipeline_target="127.0.0.1:1") as pipeline,
        pytest.raises(
            NetworkError, match=r"the pipeline at 127\.0\.0\.1:1 failed with UNAVAILABLE"
        ),
    ):
        pipeline.decide(b"x")


@pytest.mark.parametrize(
    ("kind", "given", "message"),
    [
        ("classifier", {}, "expected --networks and --network"),
        ("classifier", {"network": "x", "pipeline_target": "y:1"}, "no target"),
        ("inference", {"model": "x"}, "expected --pipeline-target and --model"),
        ("car_model", {"model": "x", "pipeline_target": "y:1"}, "got both"),
        ("inference", {"model": "x", "pipeline_target": "y:1", "classes": Path("/none")},
         "expected names of classes"),
    ],
)  # fmt: skip
def test_mistakes_are_messages(kind: str, given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        open_pipeline(options(kind, **given))
