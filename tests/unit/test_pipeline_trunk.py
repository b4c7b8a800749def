"""A pipeline's classifier as a trunk, and the predictors that were trained on such trunks."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from cli.main import main
from pipelines.card import ClassifierCard
from pipelines.training.trunk import write_trunk
from tests.conftest import draw, encode
from utility_gate.checkpoint import load_card, save_card
from utility_gate.errors import CheckpointError, ConfigError
from utility_gate.files import digest_bytes
from utility_gate.networks import open_session
from utility_gate.predictor import UtilityPredictor, checkpoint_folder, embedded_tasks
from utility_gate.training.config import load_config
from utility_gate.training.fit import build_net

PIPELINES = Path(__file__).parents[2] / "pipelines"
CAR_MODEL = PIPELINES / "car_model" / "default" / "classifier"
DAMAGE = PIPELINES / "damage" / "default" / "classifier"


@pytest.mark.parametrize(
    ("folder", "head", "side", "first", "classes"),
    [(CAR_MODEL, "model", 288, 0, 197), (DAMAGE, "type", 224, 0, 10),
     (DAMAGE, "severity", 224, 10, 3)],
)  # fmt: skip
def test_a_trunk_says_what_the_classifier_says(
    folder: Path, head: str, side: int, first: int, classes: int, tmp_path: Path
) -> None:
    card = write_trunk(folder, head, tmp_path / "trunk.safetensors")
    net = build_net(load_config("pipeline", init=str(tmp_path / "trunk.safetensors")))
    images = np.random.default_rng(0).normal(size=(2, 3, side, side)).astype(np.float32)
    said = open_session(folder / card.weights.file).run(["logits"], {"images": images})[0]
    with torch.inference_mode():
        logits = net.trunk.eval().net(torch.from_numpy(images)).numpy()
    assert logits.shape == (2, classes)
    np.testing.assert_allclose(logits, said[:, first : first + classes], atol=1e-3)
    with safe_open(tmp_path / "trunk.safetensors", framework="pt") as file:
        assert file.metadata() == {
            "classifier": f"{card.name} {card.version}, head {head}",
            "classifier_sha256": card.weights.sha256,
        }


def test_the_command_writes_a_trunk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "trunk.safetensors"
    assert main(["pipeline", "trunk", "damage", "--out", str(out)]) == 0
    assert "head type" in capsys.readouterr().out
    assert out.stat().st_size > 8e6


def test_without_a_trunk_the_preset_says_what_it_takes() -> None:
    with pytest.raises(CheckpointError, match="a trunk of `utility-gate pipeline trunk`"):
        build_net(load_config("pipeline"))


def changed(folder: Path, model: bytes, **training: object) -> Path:
    """A copy of the damage classifier with other weights, or another history."""
    shutil.copytree(DAMAGE, folder)
    card, _ = load_card(folder, ClassifierCard)
    (folder / card.weights.file).write_bytes(model)
    weights = card.weights.model_copy(update={"sha256": digest_bytes(model)})
    history = card.training | training
    save_card(card.model_copy(update={"weights": weights, "training": history}), folder)
    return folder


def test_what_cannot_be_a_trunk_is_told(tmp_path: Path) -> None:
    out = tmp_path / "trunk.safetensors"
    with pytest.raises(ConfigError, match="one of the heads type, severity, got 'colour'"):
        write_trunk(DAMAGE, "colour", out)
    same = (DAMAGE / "model.onnx").read_bytes()
    vgg = changed(tmp_path / "vgg", same, recipe={"arch": "vgg16"})
    with pytest.raises(ConfigError, match="a classifier on resnet18 or mobilenet_v2, got vgg16"):
        write_trunk(vgg, "type", out)
    with checkpoint_folder("embedded") as folder:
        other = changed(tmp_path / "other", (folder / "model.int8.onnx").read_bytes())
    with pytest.raises(CheckpointError, match="a classifier's layers, not quantised"):
        write_trunk(other, "type", out)
    assert not out.exists()


def test_a_predictor_ships_for_each_task() -> None:
    assert embedded_tasks() == ("damage", "general")
    assert UtilityPredictor.load("embedded").card.task == "general"
    for task in embedded_tasks():
        for precision in ("fp32", "auto"):
            predictor = UtilityPredictor.load(f"embedded:{task}", precision=precision)  # type: ignore[arg-type]
            assert predictor.card.task == task
            assert 0 <= predictor.look(encode(draw(), "JPEG")).utility <= 1
    with pytest.raises(CheckpointError, match="a task among damage, general, got"):
        UtilityPredictor.load("embedded:weather")


def test_the_gate_for_damage_was_trained_on_the_classifier_that_ships() -> None:
    """Or its promises are about another one's mistakes."""
    classifier, _ = load_card(DAMAGE, ClassifierCard)
    training = UtilityPredictor.load("embedded:damage").card.training
    name = f"{classifier.name} {classifier.version}, head type"
    assert training["init"]["classifier"] == name
    assert training["init"]["classifier_sha256"] == classifier.weights.sha256
    for table in training["labels"]:
        (network,) = table["networks"].values()
        assert network["sha256"] == classifier.weights.sha256
