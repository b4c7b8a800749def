"""What a GPU changes: nothing but the time. Run where there is one: `pytest -m gpu`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from labelers.networks import open_network
from tests.conftest import draw
from tests.training import TINY
from tests.unit.test_networks import cache_state, classify, detect
from tests.unit.test_training_fit import SMALL, check_killed_run, run
from utility_gate.predictor import UtilityPredictor
from utility_gate.sides import load_sides
from utility_gate.training.config import load_config
from utility_gate.training.fit import build_net, fit_exactly, head_logits
from utility_gate.training.train import train

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

Patch = pytest.MonkeyPatch


def on_cpu(patch: Patch) -> None:
    """As on a machine without one."""
    patch.setattr(torch.cuda, "is_available", lambda: False)


def test_training_uses_the_gpu(tables: Path, tmp_path: Path) -> None:
    torch.cuda.reset_peak_memory_stats()
    config = load_config("finetune", **(TINY | {"precision": "bf16-mixed"}))
    card = train(
        config, [tables / "labels.parquet"], tables, tmp_path / "predictor", name="gpu",
        release="1",
    )  # fmt: skip
    assert torch.cuda.max_memory_allocated() > 40e6  # the network's weights alone
    assert card is not None
    assert card.training["pace"]["device"] == torch.cuda.get_device_name()
    # Exported on the GPU's machine, it proves itself by ONNX Runtime on the CPU.
    assert UtilityPredictor.load(tmp_path / "predictor").card.name == "gpu"


@pytest.mark.parametrize("changes", [{}, {"precision": "bf16-mixed", "compile": "never"}])
def test_a_killed_run_ends_as_if_it_had_not_been(
    tables: Path, tmp_path: Path, monkeypatch: Patch, changes: dict[str, Any]
) -> None:
    check_killed_run(tables, tmp_path, load_config("finetune", **(SMALL | changes)), monkeypatch)


def test_a_compiled_network_learns_what_it_learns_otherwise(tables: Path, tmp_path: Path) -> None:
    """The first step's loss, before differences in the last digits grow."""
    losses = []
    for compiled in ("never", "always"):
        config = load_config(
            "finetune",
            **(SMALL | {"compile": compiled, "epochs": 1, "epoch_samples": 16, "dropout": 0.0}),
        )
        run(tables, tmp_path / compiled, config)
        log = next((tmp_path / compiled / "log").rglob("metrics.csv")).read_text().splitlines()
        column = log[0].split(",").index("train_loss")
        losses += [float(line.split(",")[column]) for line in log[1:] if line.split(",")[column]]
    assert losses[0] == pytest.approx(losses[1], rel=0.01)


def test_a_head_on_a_frozen_trunk_is_the_cpu_s(tables: Path, monkeypatch: Patch) -> None:
    config = load_config("embedded", **(TINY | {"views": 1, "weight_decay": 1.0}))
    sides = load_sides([tables / "labels.parquet"], tables, config.targets, config.shares)

    def margins() -> np.ndarray:
        net = build_net(config)
        fit_exactly(net, config, sides.train, None)
        logits = head_logits(net, config, sides.validation, None)
        return (logits[:, 1] - logits[:, 0]).numpy()

    seen_by_gpu = margins()
    with monkeypatch.context() as patch:
        on_cpu(patch)
        seen_by_cpu = margins()
    # A GPU convolves in TF32, and a random trunk's small features make the most of it.
    assert np.corrcoef(seen_by_gpu, seen_by_cpu)[0, 1] > 0.99


@pytest.mark.parametrize("name", ["mobilenet_v2", "densenet121"])
def test_a_classifier_labels_as_on_the_cpu(name: str, tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    cache_state(name, "IMAGENET1K_V1", tmp_path)
    images = [draw(seed=seed) for seed in range(4)]
    by_gpu = open_network(f"torchvision:{name}", None)
    assert torch.cuda.get_device_name() in str(by_gpu.description["device"])
    probabilities = classify(by_gpu, *images)
    assert (probabilities == classify(by_gpu, *images)).all(), "the same each time"
    on_cpu(monkeypatch)
    by_cpu = open_network(f"torchvision:{name}", None)
    assert by_cpu.description["device"] == "cpu"
    expected = classify(by_cpu, *images)
    assert np.abs(probabilities - expected).max() < 0.01
    assert (probabilities.argmax(1) == expected.argmax(1)).all()


def test_a_detector_finds_what_it_finds_on_the_cpu(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    name = "ssdlite320_mobilenet_v3_large"
    cache_state(name, "COCO_V1", tmp_path)
    (found,) = detect(open_network(f"torchvision:{name}", None, "detection"), draw(320, 240))
    on_cpu(monkeypatch)
    (expected,) = detect(open_network(f"torchvision:{name}", None, "detection"), draw(320, 240))
    most = min(10, len(found.scores), len(expected.scores))
    assert found.scores[:most] == pytest.approx(expected.scores[:most], abs=0.01)
