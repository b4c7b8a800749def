"""The command line as a user runs it: real processes, real files."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from skimage import data as photographs

from tests.conftest import RunningGate, draw, encode, save_brightness_predictor

CLI = [sys.executable, "-m", "cli.main"]


def utility_gate(
    *arguments: str | Path, timeout: float = 120, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*CLI, *map(str, arguments)],
        capture_output=True, text=True, timeout=timeout, env=os.environ | environment,
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, level in (("dark", 10), ("bright", 230)):
        (tmp_path / f"{name}.png").write_bytes(encode(np.full((90, 90, 3), level, np.uint8), "PNG"))
    (tmp_path / "junk.jpg").write_bytes(b"junk")
    return tmp_path


def lines(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def test_assess_prints_an_object_a_line_and_goes_on_after_a_bad_file(
    folder: Path, brightness_predictor: Path
) -> None:
    done = utility_gate(
        "assess", "--json", "--predictor", brightness_predictor,
        folder / "bright.png", folder / "junk.jpg", folder / "absent.jpg", folder / "dark.png",
    )  # fmt: skip
    assert done.returncode == 1
    bright, junk, absent, dark = lines(done.stdout)
    assert (bright["decision"], dark["decision"]) == ("USEFUL", "NON_USEFUL")
    assert bright["utility"] > dark["utility"]  # type: ignore[operator]
    assert bright["path"] == str(folder / "bright.png")
    assert dark["reasons"][0]["kind"] == "LOW_UTILITY"  # type: ignore[index]
    advice = {one["kind"]: one["value"] for one in dark["advice"]}  # type: ignore[attr-defined]
    assert advice["BRIGHTER"] == 25
    assert bright["advice"] == []
    assert set(junk) == {"path", "error"}
    assert "JPEG, PNG or WebP" in str(junk["error"])
    assert "No such file" in str(absent["error"])


def test_assess_prints_a_table(folder: Path, brightness_predictor: Path) -> None:
    done = utility_gate("assess", "--predictor", brightness_predictor, folder / "bright.png")
    assert done.returncode == 0
    heading, row = done.stdout.splitlines()
    assert heading.split() == ["photo", "quality", "utility", "decision", "ms", "reasons",
                               "->", "advice"]  # fmt: skip
    assert "USEFUL" in row
    assert "->" not in row
    done = utility_gate("assess", "--predictor", brightness_predictor, folder / "dark.png")
    assert "-> BRIGHTER 25, MORE_CONTRAST 15" in done.stdout


def test_assess_asks_a_running_gate(folder: Path, gate: RunningGate) -> None:
    done = utility_gate(
        "assess", "--json", "--target", gate.target, "--task", "general", folder / "bright.png",
        "--qualities", "90,30",
    )  # fmt: skip
    assert done.returncode == 0
    assert [line["quality"] for line in lines(done.stdout)] == [90, 30]
    assert {line["decision"] for line in lines(done.stdout)} == {"USEFUL"}
    assert gate.metric("utility_gate_requests_total", method="Assess", code="OK") == 2
    unknown = utility_gate("assess", "--json", "--target", gate.target, "--task", "moon",
                           folder / "bright.png")  # fmt: skip
    assert unknown.returncode == 1
    assert "expected one of the tasks general" in str(lines(unknown.stdout)[0]["error"])


def test_suggest_says_and_writes_and_goes_on_after_a_bad_file(
    folder: Path, brightness_predictor: Path, photo: np.ndarray
) -> None:
    (folder / "photo.png").write_bytes(encode((photo // 2 + 128).astype(np.uint8), "PNG"))
    out = folder / "out"
    done = utility_gate(
        "suggest", "--json", "--predictor", brightness_predictor, "--write", out,
        folder / "photo.png", folder / "junk.jpg", folder / "dark.png",
    )  # fmt: skip
    assert done.returncode == 1
    found, junk, dark = lines(done.stdout)
    assert found["found"] is True
    assert found["quality"] == 20
    assert found["saved"] == found["original_size"] - found["size"]  # type: ignore[operator]
    assert found["saved_against_95"] > found["saved_against_90"] > 0  # type: ignore[operator]
    curve = [rung["quality"] for rung in found["curve"]]  # type: ignore[attr-defined]
    assert curve == sorted(curve, reverse=True)
    assert (out / "photo.jpg").stat().st_size == found["size"]
    assert "JPEG, PNG or WebP" in str(junk["error"])
    assert dark["found"] is False
    assert dark["advice"]
    assert [file.name for file in out.iterdir()] == ["photo.jpg"]
    # What is there is not touched, be it the source itself.
    before = (out / "photo.jpg").read_bytes()
    again = utility_gate(
        "suggest", "--predictor", brightness_predictor, "--write", out, out / "photo.jpg"
    )
    assert again.returncode == 1
    assert "expected a free name" in again.stderr
    assert (out / "photo.jpg").read_bytes() == before


def test_the_int8_weights_judge_if_they_are_asked_for(folder: Path) -> None:
    def utility(*options: str) -> float:
        done = utility_gate("assess", folder / "bright.png", "--json", *options)
        assert done.returncode == 0, done.stderr
        return float(json.loads(done.stdout)["utility"])

    single, eighth = utility(), utility("--precision", "int8")
    assert utility("--precision", "fp32") == single != eighth
    assert eighth == pytest.approx(single, abs=0.2)


def test_suggest_asks_a_running_gate(folder: Path, gate: RunningGate) -> None:
    done = utility_gate(
        "suggest", "--target", gate.target, "--max-side", "60",
        folder / "bright.png", folder / "dark.png",
    )  # fmt: skip
    assert done.returncode == 0
    heading, bright, dark = done.stdout.splitlines()
    assert heading.split()[:3] == ["photo", "quality", "utility"]
    assert bright.split()[1] == "20"
    assert "BRIGHTER 25" in dark
    assert gate.metric("utility_gate_requests_total", method="Suggest", code="OK") == 2


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "COMMAND"),
        (["suggest", "a.jpg", "--max-side", "-1"], 1, "expected --max-side of 0 or more"),
        (["suggest", "a.jpg", "--utility", "2"], 1, "--utility in [0, 1]"),
        (["suggest", "a.jpg", "--task", "x"], 1, "expected --target beside --task"),
        (["assess", "a.jpg", "--qualities", "90,0"], 2, "expected qualities such as 90,30,5"),
        (["assess", "a.jpg", "--predictor", "/nowhere"], 1, "expected card.json"),
        (
            ["assess", "a.jpg", "--precision", "int8", "--target", "x:1"],
            1,
            "--target or --precision",
        ),
        (["suggest", "a.jpg", "--predictor", "d", "--target", "x:1"], 1, "--target or --predictor"),
        (["assess", "a.jpg", "--precision", "int4"], 2, "invalid choice: 'int4'"),
        (["serve", "--config", "/nowhere.toml"], 1, "expected a TOML file of settings"),
        (["serve", "--port", "99999"], 1, "port: Input should be less than or equal to 65535"),
        (["health", "--target", "127.0.0.1:1", "--timeout", "1"], 1, ""),
        (
            ["train", "--preset", "worst", "--labels", "l", "--images", "i", "--out", "o"],
            1,
            "preset",
        ),
        (["evaluate", "--labels", "l", "--images", "i", "--reference", "x"], 1, "together"),
    ],
)
def test_mistakes_are_messages(arguments: list[str], code: int, message: str) -> None:
    done = utility_gate(*arguments)
    assert done.returncode == code
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_reader_that_has_seen_enough_is_no_error(brightness_predictor: Path) -> None:
    command = f"{sys.executable} -m cli.main card --json --predictor {brightness_predictor} | true"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60)
    assert done.stderr == ""


def test_neither_client_nor_predictor_nor_server_imports_torch() -> None:
    program = (
        "import utility_gate.client, utility_gate.predictor, server.app, cli.main, sys; "
        "cli.main.build_parser(); "
        "assert not {'torch', 'pyarrow', 'lightning'} & set(sys.modules), sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, timeout=60)


@contextmanager
def serving(
    predictor: Path | str, *arguments: str
) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    process = subprocess.Popen(
        [*CLI, "serve", "--port", "0", "--web-port", "0", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"UTILITY_GATE_PREDICTORS": json.dumps({"general": str(predictor)}),
                          "UTILITY_GATE_DRAIN_SECONDS": "0.2"},
    )  # fmt: skip
    endpoints: dict[str, str] = {}
    try:
        assert process.stdout is not None
        for line in process.stdout:
            name, address = line.split()
            endpoints[name] = address
            if name == "ready":
                break
        yield process, endpoints
    finally:
        process.kill()
        process.communicate(timeout=10)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve_prints_its_endpoints_and_ends_with_0_on_a_signal(
    brightness_predictor: Path, folder: Path, number: signal.Signals
) -> None:
    with serving(brightness_predictor) as (process, endpoints):
        assert set(endpoints) == {"grpc", "metrics", "alive", "ready"}
        health = utility_gate("health", "--target", endpoints["grpc"])
        assert (health.returncode, health.stdout.strip()) == (0, "SERVING")
        judged = utility_gate(
            "assess", "--json", "--target", endpoints["grpc"], folder / "dark.png"
        )
        assert lines(judged.stdout)[0]["decision"] == "NON_USEFUL"
        process.send_signal(number)
        assert process.wait(20) == 0
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()


def test_a_signal_while_starting_ends_it(tmp_path: Path) -> None:
    program = (
        "import time, sys, server.app, cli.main; load = server.app.GateServer._load;"
        "server.app.GateServer._load = lambda s: (print('loading', flush=True),"
        " time.sleep(1.5), load(s))[2]; sys.exit(cli.main.main())"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, "serve", "--port", "0", "--web-port", "0"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "loading\n"
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 0, err
    assert "grpc" not in out, "it never became ready"
    assert "asked to stop while starting" in err


def test_serve_with_a_predictor_that_fails_never_becomes_ready(tmp_path: Path) -> None:
    folder = save_brightness_predictor(tmp_path)
    card = json.loads((folder / "card.json").read_text())
    card["conformance"][0]["utility"] = 0.9
    (folder / "card.json").write_text(json.dumps(card))
    with serving(folder) as (process, endpoints):
        assert process.wait(30) == 1
        assert endpoints == {}
        assert process.stderr is not None
        assert "conformance vector 0" in process.stderr.read()


@pytest.mark.slow
def test_label_train_evaluate_and_serve_as_the_readme_says(tmp_path: Path) -> None:
    """The whole chain on drawn images and two ONNX networks that look at sharpness."""
    from tests.networks import save_sharpness_networks

    images = tmp_path / "images"
    images.mkdir()
    rows = ["path,class_index"]
    for number in range(60):
        (images / f"{number}.png").write_bytes(encode(draw(96, 96, seed=number), "PNG"))
        rows.append(f"{number}.png,1")
    (tmp_path / "truth.csv").write_text("\n".join(rows))
    save_sharpness_networks(tmp_path)
    (tmp_path / "label.toml").write_text(
        'networks = ["one", "two"]\nobserve_only = ["three"]\nqualities = [90, 30, 2]\n'
    )
    labelled = utility_gate(
        "label", "--config", tmp_path / "label.toml", "--images", images,
        "--truth", tmp_path / "truth.csv", "--networks", tmp_path / "networks.toml",
        "--out", tmp_path / "labels",
    )  # fmt: skip
    assert labelled.returncode == 0, labelled.stderr
    assert "720 observations, 180 labels" in labelled.stdout
    tables = ["--labels", tmp_path / "labels" / "labels.parquet", "--images", images]
    (tmp_path / "tiny.toml").write_text(
        "side = 48\nscale_to = 64\nepoch_samples = 96\nbatch_size = 16\nworkers = 0\n"
        'precision = "32-true"\ninit = "scratch"\nlearning_rate = 5e-4\ntrunk_rate = 1.0\n'
        'targets = "unanimous"\n'
    )
    trained = utility_gate(
        "train", "--preset", tmp_path / "tiny.toml", *tables, "--epochs", "8",
        "--out", tmp_path / "predictor", "--name", "mine", timeout=300,
    )  # fmt: skip
    assert trained.returncode == 0, trained.stderr
    assert "validation AUROC" in trained.stdout
    evaluated = utility_gate(
        "evaluate", "--predictor", tmp_path / "predictor", *tables, "--record", "--observations",
        tmp_path / "labels" / "observations.parquet", "--reference", "three",
    )  # fmt: skip
    assert evaluated.returncode == 0, evaluated.stderr
    assert "| mine 1 |" in evaluated.stdout
    assert "(a) JPEG quality in the file" in evaluated.stdout
    card = json.loads((tmp_path / "predictor" / "card.json").read_text())
    assert card["metrics"]["gates"][0]["name"] == "mine 1"
    shown = utility_gate("card", "--predictor", tmp_path / "predictor")
    assert "| mine 1 |" in shown.stdout
    with (tmp_path / "predictor" / "log" / "000" / "metrics.csv").open() as log:
        losses = [float(row["train_loss"]) for row in csv.DictReader(log) if row["train_loss"]]
    assert len(losses) == 8
    assert losses[-1] < losses[0], "it should have learned something"
    with serving(tmp_path / "predictor") as (_, endpoints):
        judged = utility_gate("assess", "--json", "--target", endpoints["grpc"], images / "1.png")
        assert lines(judged.stdout)[0]["predictor"] == "mine 1"


class TestEmbedded:
    """The predictor that ships with the package, on photographs that it never saw."""

    @pytest.fixture
    def photos(self, tmp_path: Path) -> list[Path]:
        paths = []
        for name in ("chelsea", "coffee"):
            paths.append(tmp_path / f"{name}.png")
            paths[-1].write_bytes(encode(getattr(photographs, name)(), "PNG"))
        return paths

    def test_utility_falls_with_quality(self, photos: list[Path]) -> None:
        for photo in photos:
            done = utility_gate("assess", "--json", photo, "--qualities", "90,30,5")
            utilities = [line["utility"] for line in lines(done.stdout)]
            assert len(utilities) == 3
            assert utilities == sorted(utilities, reverse=True), photo.name
            assert utilities[0] > 0.9
            assert utilities[0] > utilities[2]

    def test_the_demo_runs_and_ends_with_0(self) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "examples.demo"], capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("chelsea") == 12
        stopped = done.stdout.count("STOPPED")
        assert 2 <= stopped <= 34
        assert (
            sum(map(int, re.findall(r"(\d+) of 18 photographs were stopped", done.stdout)))
            == stopped
        )

    def test_the_pipeline_s_model_sees_only_useful_images(self) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "examples.pipeline"], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("the model runs") == 2
        assert done.stdout.count("FAILED_PRECONDITION") == 2


def test_help_says_what_each_command_is_for() -> None:
    done = utility_gate("--help")
    assert done.returncode == 0
    for name in (
        "assess",
        "serve",
        "health",
        "card",
        "label",
        "relabel",
        "report",
        "export",
        "pretrain",
        "train",
        "evaluate",
    ):
        assert name in done.stdout
        assert utility_gate(name, "--help").returncode == 0


@pytest.mark.parametrize(
    ("command", "module", "extra"),
    [
        (["relabel", "LABELS", "--out", "o"], "pyarrow", "label"),
        (["report", "LABELS"], "pyarrow", "report"),
        (["train", "--labels", "l", "--images", "i", "--out", "o"], "torch", "train"),
    ],
)
def test_a_missing_extra_is_named(command: list[str], module: str, extra: str) -> None:
    code = f"import sys; sys.modules[{module!r}] = None; import cli.main; sys.exit(cli.main.main())"
    done = subprocess.run(
        [sys.executable, "-c", code, *command], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert f"of the extra {extra}: pip install '.[{extra}]'" in done.stderr
    assert "Traceback" not in done.stderr
