"""Labelling as its users run it: the command line, real processes, a kill, a full disk, Ray."""

from __future__ import annotations

import csv
import gc
import io
import json
import os
import resource
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset

from labelers.store import PART_SOURCES
from tests.conftest import draw, encode
from tests.networks import save_colour_network, write_entries
from utility_gate.files import digest_bytes
from utility_gate.tables import read_labels

SOURCES = 3 * PART_SOURCES


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images, truth, networks and a configuration; the copies differ in size, so does the work."""
    (tmp_path / "images").mkdir()
    lines = ["path,class_index"]
    for number in range(SOURCES):
        pixels = draw(160, 120, seed=number)
        pixels[..., number % 3] |= 0xE0
        (tmp_path / "images" / f"{number:03d}.png").write_bytes(encode(pixels, "PNG"))
        lines.append(f"{number:03d}.png,{number % 3}")
    (tmp_path / "truth.csv").write_text("\n".join(lines))
    for name in ("one", "two"):
        save_colour_network(tmp_path / f"{name}.onnx", sharpness=0.1)
    write_entries(tmp_path, ["one", "two"])
    (tmp_path / "label.toml").write_text('networks = ["one", "two"]\nqualities = [90, 5]\n')
    return tmp_path


def command(folder: Path, out: str, *options: str) -> list[str]:
    return [
        sys.executable, "-m", "cli.main", "label", "--config", f"{folder}/label.toml",
        "--images", f"{folder}/images", "--truth", f"{folder}/truth.csv",
        "--networks", f"{folder}/networks.toml", "--out", f"{folder}/{out}", *options,
    ]  # fmt: skip


def label(folder: Path, out: str, *options: str, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(folder, out, *options), capture_output=True, text=True, timeout=180, **more
    )


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "cli.main", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, timeout=180)


def tables(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def wait_for(condition: Any, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it should have happened by now"
        time.sleep(0.01)


def children_of(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


@pytest.mark.slow
@pytest.mark.parametrize("parts", [0, 1, 2])
def test_kill_9_loses_nothing_and_leaves_nobody(folder: Path, parts: int) -> None:
    whole = label(folder, "whole", "--workers", "1")
    assert whole.returncode == 0, whole.stderr
    process = subprocess.Popen(
        command(folder, "killed", "--workers", "2"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    written = folder / "killed" / "parts"
    if parts:
        wait_for(lambda: len(list(written.glob("*.parquet"))) >= parts)
    else:
        wait_for((folder / "killed" / "manifest.json").exists)
    workers = children_of(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    wait_for(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers), 20)
    kept = len(list(written.glob("*.parquet"))) if written.exists() else 0
    again = label(folder, "killed", "--workers", "2")
    assert again.returncode == 0, again.stderr
    if kept < 3:
        assert f"{SOURCES - kept * PART_SOURCES} sources observed" in again.stdout
    assert tables(folder / "killed") == tables(folder / "whole")
    assert "nothing was computed" in label(folder, "killed").stdout


@pytest.mark.slow
def test_a_full_disk_is_named_and_loses_nothing(folder: Path) -> None:
    """A limit on the size of files stands for the disk: the big tables at the end do not fit."""
    assert label(folder, "whole", "--workers", "1").returncode == 0
    largest = max(len(data) for data in tables(folder / "whole").values())

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest - 1000, largest - 1000))

    full = label(folder, "full", "--workers", "1", preexec_fn=limit)
    assert full.returncode == 1
    assert "could not be written" in full.stderr
    assert "Traceback" not in full.stderr
    assert len(list((folder / "full" / "parts").glob("*.parquet"))) == 3
    again = label(folder, "full")
    assert again.returncode == 0, again.stderr
    assert "all of it was there already" in again.stdout, "no network had to look again"
    assert tables(folder / "full") == tables(folder / "whole")


@pytest.mark.slow
def test_ray_makes_the_same_tables(folder: Path) -> None:
    pytest.importorskip("ray", reason="Ray has no wheel for this Python")
    (folder / "images" / "004.png").write_bytes(b"no image")
    assert label(folder, "local", "--workers", "2").returncode == 0
    # Ray hands its own environment on to its workers: only what the command needs goes in.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    done = label(folder, "ray", "--engine", "ray", "--workers", "2", env=environment)
    assert done.returncode == 0, done.stderr
    assert tables(folder / "ray") == tables(folder / "local")
    # A network's nonsense is our error there too, not Ray's.
    save_colour_network(folder / "two.onnx", sharpness=float("nan"))
    failed = label(folder, "nan", "--engine", "ray", "--workers", "1", env=environment)
    assert failed.returncode == 1
    assert "two: expected finite probabilities" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_a_killed_worker_is_named(folder: Path) -> None:
    """As the kernel does when memory runs out."""
    process = subprocess.Popen(
        command(folder, "out", "--workers", "2"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )

    def spawned() -> list[int]:
        return [
            child for child in children_of(process.pid)
            if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()
        ]  # fmt: skip

    wait_for(lambda: len(spawned()) == 2)
    os.kill(spawned()[0], signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "a labelling process died" in errors
    assert label(folder, "out").returncode == 0


def test_a_dry_run_writes_nothing(folder: Path) -> None:
    done = label(folder, "out", "--dry-run", "--workers", "2")
    assert done.returncode == 0, done.stderr
    assert f"{SOURCES} sources, 0 of them observed already" in done.stdout
    assert "2 copies of each: jpeg 90, jpeg 5" in done.stdout
    assert f"{SOURCES * 3 * 2} observations" in done.stdout
    assert "min on 2 workers" in done.stdout
    assert not (folder / "out").exists()


def test_relabel_and_export(folder: Path) -> None:
    assert label(folder, "out", "--workers", "1").returncode == 0
    labels = folder / "out" / "labels.parquet"
    (folder / "one.onnx").unlink()
    relabelled = run(
        "relabel", folder / "out", "--out", folder / "new.parquet", "--t-high", "0.5",
        "--operator", "majority",
    )  # fmt: skip
    assert relabelled.returncode == 0, relabelled.stderr
    assert relabelled.stdout.splitlines()[1].split()[:3] == ["jpeg", "90", "48"]
    wrong = run("relabel", folder / "out", "--out", folder / "new.parquet", "--iou", "0.5")
    assert wrong.returncode == 1
    assert "expected only t_high" in wrong.stderr

    assert run("export", labels, "--format", "csv", "--out", folder / "l.csv").returncode == 0
    with (folder / "l.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["image_digest"] for row in rows] == [r.image_digest for r in read_labels(labels)]
    assert rows[0]["label"] in ("0", "1", "")

    line = ["export", labels, "--format", "webdataset", "--images", folder / "images",
            "--shard-size", 20, "--out"]  # fmt: skip
    shards = run(*line, folder / "shards")
    assert shards.returncode == 0, shards.stderr
    run(*line, folder / "again")
    assert tables(folder / "again") == tables(folder / "shards")
    missing = run("export", labels, "--format", "webdataset", "--out", folder / "shards")
    assert "expected --images" in missing.stderr


# webdataset leaves its shards to the garbage collector.
@pytest.mark.filterwarnings("ignore:.*unclosed file:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_shards_are_what_webdataset_reads(folder: Path) -> None:
    assert label(folder, "out", "--workers", "1").returncode == 0
    labels = folder / "out" / "labels.parquet"
    done = run(
        "export", labels, "--format", "webdataset", "--images", folder / "images",
        "--shard-size", 20, "--undecided", "--out", folder / "shards",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = {row.image_digest: row for row in read_labels(labels)}
    seen = 0
    for shard in sorted((folder / "shards").iterdir()):
        with tarfile.open(shard) as tar:
            assert len(tar.getnames()) <= 60
        for sample in webdataset.WebDataset(str(shard), shardshuffle=False).decode("rgb8"):
            seen += 1
            row = rows[sample["json"]["image_digest"]]
            assert shard.name.startswith(row.split)
            assert sample["cls"] == (-1 if row.label is None else row.label)
            assert sample["jpg"].shape == (120, 160, 3)
            assert sample["jpg"].dtype == np.uint8
    gc.collect()
    assert seen == len(rows) == 2 * SOURCES
    first = io.BytesIO((folder / "shards" / "train-000000.tar").read_bytes())
    with tarfile.open(fileobj=first) as tar:
        data = tar.extractfile(tar.getnames()[0])
        entry = tar.extractfile(tar.getnames()[2])
        assert data is not None
        assert entry is not None
        assert digest_bytes(data.read()) == json.loads(entry.read())["image_digest"]
