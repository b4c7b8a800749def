"""A predictor is used only if it is whole and computes what its card says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from server.gate import Gate
from tests.conftest import draw, encode, save_brightness_predictor
from utility_gate.checkpoint import Card, ConformanceVector, load
from utility_gate.errors import CheckpointError, ConfigError
from utility_gate.predictor import UtilityPredictor, to_utility


def edit(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    card = json.loads((folder / "card.json").read_text())
    change(card)
    (folder / "card.json").write_text(json.dumps(card))


def test_a_whole_predictor_loads_and_predicts(tmp_path: Path) -> None:
    predictor = UtilityPredictor.load(save_brightness_predictor(tmp_path))
    crops = np.stack([np.full((32, 32, 3), level, np.uint8) for level in (0, 128, 255)])
    utilities = predictor.predict(crops)
    assert utilities == pytest.approx([0.018, 0.5, 0.981], abs=0.01)


def test_the_card_survives_saving(tmp_path: Path) -> None:
    card, _ = load(save_brightness_predictor(tmp_path))
    again = Card.model_validate_json((tmp_path / "card.json").read_bytes())
    assert again == card
    assert again.info.version == "7"


def test_temperature_and_softmax_by_hand() -> None:
    logits = np.array([[0.0, 2.0], [1000.0, -1000.0]])
    assert to_utility(logits, 2.0)[0] == pytest.approx(1 / (1 + np.exp(-1)))
    assert to_utility(logits, 0.05)[1] == pytest.approx(0, abs=1e-9)


def test_missing_or_damaged_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"card\.json"):
        UtilityPredictor.load(tmp_path / "nothing")
    folder = save_brightness_predictor(tmp_path / "a")
    (folder / "model.onnx").write_bytes(b"other bytes")
    with pytest.raises(CheckpointError, match="expected SHA-256"):
        UtilityPredictor.load(folder)
    folder = save_brightness_predictor(tmp_path / "b")
    (folder / "model.onnx").unlink()
    with pytest.raises(CheckpointError, match="expected card"):
        UtilityPredictor.load(folder)
    folder = save_brightness_predictor(tmp_path / "c")
    (folder / "card.json").write_text("{")
    with pytest.raises(CheckpointError, match="not a valid card"):
        UtilityPredictor.load(folder)


@pytest.mark.parametrize("name", ["../model.onnx", "/etc/passwd", "model.pkl"])
def test_weights_must_be_onnx_beside_the_card(tmp_path: Path, name: str) -> None:
    folder = save_brightness_predictor(tmp_path)
    edit(folder, lambda card: card["weights"].update(file=name))
    with pytest.raises(CheckpointError, match="beside the card"):
        UtilityPredictor.load(folder)


def test_weights_that_are_no_network_are_refused(tmp_path: Path) -> None:
    from utility_gate.files import digest_bytes

    folder = save_brightness_predictor(tmp_path)
    (folder / "model.onnx").write_bytes(b"junk")
    edit(folder, lambda card: card["weights"].update(sha256=digest_bytes(b"junk")))
    with pytest.raises(CheckpointError, match="cannot load"):
        UtilityPredictor.load(folder)


def test_a_predictor_that_computes_something_else_is_refused(tmp_path: Path) -> None:
    folder = save_brightness_predictor(tmp_path)
    edit(folder, lambda card: card["conformance"][0].update(utility=0.9))
    with pytest.raises(CheckpointError, match=r"conformance vector 0: expected utility 0\.9"):
        UtilityPredictor.load(folder)


def test_a_predictor_whose_preprocessing_does_not_fit_is_refused(tmp_path: Path) -> None:
    folder = save_brightness_predictor(tmp_path)
    edit(folder, lambda card: card["preprocess"].update(crop=31))
    with pytest.raises(CheckpointError, match="does not run"):
        UtilityPredictor.load(folder)


def test_conformance_vectors_cannot_be_lax() -> None:
    with pytest.raises(ValueError, match="tolerance"):
        ConformanceVector(image="", utility=0.5, tolerance=0.5)


def test_an_image_too_small_to_judge_has_no_utility(tmp_path: Path) -> None:
    gate = Gate({"general": UtilityPredictor.load(save_brightness_predictor(tmp_path))})
    white = encode(np.full((8, 300, 3), 255, np.uint8), "PNG")
    verdict = gate.assess(white)
    assert verdict.utility == 0
    assert verdict.decision == "NON_USEFUL"
    assert "TOO_SMALL" in [reason.kind for reason in verdict.reasons]
    one = gate.assess(encode(draw(1, 1), "PNG"))
    assert (one.image.width, one.image.height, one.utility) == (1, 1, 0)


def test_a_gate_needs_a_predictor() -> None:
    with pytest.raises(ConfigError, match="at least one task"):
        Gate({})


def test_the_first_task_is_the_default(tmp_path: Path) -> None:
    predictor = UtilityPredictor.load(save_brightness_predictor(tmp_path))
    gate = Gate({"damage": predictor, "general": predictor})
    assert gate.assess(encode(draw(), "PNG")).task == "damage"
    assert gate.assess(encode(draw(), "PNG"), "general").task == "general"
    assert [task.name for task in gate.info.tasks] == ["damage", "general"]
