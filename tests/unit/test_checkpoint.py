"""A predictor is used only if it is whole and computes what its card says."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cli.main import main
from server.gate import Gate
from server.loading import load_gate, watched_files
from server.metrics import GateMetrics
from server.settings import GateSettings
from serving.settings import load_settings
from tests.conftest import draw, encode, save_brightness_predictor
from tests.networks import pooled_network
from utility_gate.checkpoint import (
    Card,
    ConformanceVector,
    Guarantee,
    QuantizedWeights,
    load,
)
from utility_gate.errors import CheckpointError, ConfigError
from utility_gate.files import digest_bytes
from utility_gate.predictor import UtilityPredictor, to_utility


def edit(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    card = json.loads((folder / "card.json").read_text())
    change(card)
    (folder / "card.json").write_text(json.dumps(card))


INT8 = pooled_network(np.array([[0, 2], [0, 0], [0, 0]]), np.array([0, 0.4]), 32, name="images")
"""Stands for an int8 network: other logits, so other utilities of the same images."""

PROMISES = (
    Guarantee(
        kind="reject_useful", risk=0.01, sources=300, threshold=0.4, achieved=0.006, holds=True
    ),
    Guarantee(
        kind="pass_non_useful", risk=0.05, sources=12, threshold=0.6, achieved=0.1, holds=False
    ),
)


def save_both(folder: Path, weights: bytes = INT8, **own: Any) -> Path:
    """A checkpoint with a second network under the name of the int8 one."""
    values: dict[str, Any] = {
        "file": "model.int8.onnx",
        "sha256": digest_bytes(weights),
        "temperature": 2.0,
        "utilities": (0.549834,),  # of the grey image, by hand: 1 / (1 + exp(-0.4 / 2))
        "tolerance": 0.01,
        "metrics": {"made": "by hand"},
    }
    save_brightness_predictor(
        folder,
        quantized=QuantizedWeights(**(values | own)),
        guarantees=PROMISES,
        metrics={"table": "fp32's"},
        limits=("not measured on drawings",),
        intended_use="tests",
    )
    (folder / "model.int8.onnx").write_bytes(weights)
    return folder


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


def test_a_card_without_the_newer_fields_is_whole(tmp_path: Path) -> None:
    def older(card: dict[str, Any]) -> None:
        for name in ("quantized", "guarantees", "limits", "intended_use"):
            del card[name]

    before, _ = load(save_brightness_predictor(tmp_path))
    edit(tmp_path, older)
    card, _ = load(tmp_path)
    assert card == before
    assert (card.quantized, card.guarantees, card.limits, card.intended_use) == (None, (), (), "")


def test_int8_serves_with_all_that_is_its_own_and_promises_nothing(tmp_path: Path) -> None:
    folder = save_both(tmp_path, thresholds={"useful": 0.7, "review": 0.3})
    whole, card = (UtilityPredictor.load(folder, precision=p).card for p in ("fp32", "int8"))
    assert whole.info.digest == digest_bytes((folder / "model.onnx").read_bytes())
    assert card.info.digest == digest_bytes(INT8)
    assert (card.temperature, card.thresholds.useful, whole.thresholds.useful) == (2.0, 0.7, 0.6)
    assert (card.metrics, card.guarantees) == ({"made": "by hand"}, ())
    assert whole.guarantees == PROMISES
    assert [each.utility for each in card.conformance] == [0.549834]
    assert card.conformance[0].data == whole.conformance[0].data
    crops = np.full((1, 32, 32, 3), 255, np.uint8)
    predictor = UtilityPredictor.load(folder, precision="int8")
    red = (255 - 128) / 32
    assert predictor.predict(crops)[0] == pytest.approx(1 / (1 + np.exp(-(2 * red + 0.4) / 2)))


def test_thresholds_are_shared_unless_int8_has_its_own(tmp_path: Path) -> None:
    card = UtilityPredictor.load(save_both(tmp_path), precision="int8").card
    assert card.thresholds == load(tmp_path)[0].thresholds


def test_auto_takes_int8_where_it_is(tmp_path: Path) -> None:
    alone, both = save_brightness_predictor(tmp_path / "a"), save_both(tmp_path / "b")
    found = [
        UtilityPredictor.load(each, precision="auto").card.weights.file for each in (alone, both)
    ]
    assert found == ["model.onnx", "model.int8.onnx"]
    with pytest.raises(CheckpointError, match="expected int8 weights, its card names none"):
        UtilityPredictor.load(alone, precision="int8")


def test_auto_serves_in_fp32_where_int8_computes_something_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = save_both(tmp_path, utilities=(0.9,))
    with caplog.at_level(logging.WARNING):
        card = UtilityPredictor.load(folder, precision="auto").card
    assert card.weights.file == "model.onnx"
    assert "serves in fp32, not in int8" in caplog.text


def test_auto_refuses_a_checkpoint_that_is_wrong_in_both(tmp_path: Path) -> None:
    folder = save_both(tmp_path, utilities=(0.9,))
    edit(folder, lambda card: card["conformance"][0].update(utility=0.9))
    with pytest.raises(CheckpointError, match=r"expected utility 0\.9"):
        UtilityPredictor.load(folder, precision="auto")


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda folder: (folder / "model.int8.onnx").unlink(), "expected card"),
        (lambda folder: (folder / "model.int8.onnx").write_bytes(b"other"), "expected SHA-256"),
        (lambda folder: save_both(folder, b"junk"), "cannot load"),
        (lambda folder: save_both(folder, utilities=(0.52,)), "conformance vector 0: expected"),
    ],
)
def test_int8_that_cannot_be_used_is_refused_and_fp32_still_loads(
    tmp_path: Path, harm: Callable[[Path], object], message: str
) -> None:
    folder = save_both(tmp_path)
    harm(folder)
    with pytest.raises(CheckpointError, match=message):
        UtilityPredictor.load(folder, precision="int8")
    assert UtilityPredictor.load(folder).card.weights.file == "model.onnx"


def test_int8_loads_without_the_fp32_weights(tmp_path: Path) -> None:
    folder = save_both(tmp_path)
    (folder / "model.onnx").unlink()
    assert UtilityPredictor.load(folder, precision="int8").card.temperature == 2.0
    with pytest.raises(CheckpointError, match="expected card"):
        UtilityPredictor.load(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"utilities": (0.5, 0.5)}, "for each of 1 conformance images, got 2"),
        ({"file": "model.onnx"}, "in another file than model.onnx"),
        ({"tolerance": 0.2}, "tolerance"),
        ({"utilities": (1.5,)}, "less than or equal to 1"),
        ({"file": "../other.onnx"}, "beside the card"),
    ],
)
def test_int8_weights_must_fit_the_card(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    folder = save_both(tmp_path)
    edit(folder, lambda card: card["quantized"].update(change))
    with pytest.raises(CheckpointError, match=message):
        UtilityPredictor.load(folder)


def test_a_guarantee_that_its_own_numbers_contradict_is_refused() -> None:
    values = {"kind": "reject_useful", "risk": 0.01, "sources": 300, "threshold": 0.4}
    with pytest.raises(ValueError, match="expected a mean loss of at most"):
        Guarantee(**values, achieved=0.02, holds=True)
    assert Guarantee(**values, achieved=0.02, holds=False).achieved == 0.02


def test_a_gate_shows_the_digest_that_serves(tmp_path: Path) -> None:
    folder = str(save_both(tmp_path))
    settings = GateSettings(
        predictors={"general": folder, "damage": folder},
        precision={"damage": "int8"},
        canaries={"general": {"predictor": folder, "precision": "auto", "share": 1}},
    )
    metrics = GateMetrics()
    gate = load_gate(settings, metrics)
    gate.publish()
    digests = {task.name: task.predictor.digest for task in gate.info.tasks}
    fp32 = digest_bytes((tmp_path / "model.onnx").read_bytes())
    assert digests == {"general": fp32, "damage": digest_bytes(INT8)}
    labels = {"task": "damage", "name": "brightness", "version": "7", "digest": digest_bytes(INT8)}
    assert metrics.registry.get_sample_value("utility_gate_predictor_info", labels) == 1
    white = encode(np.full((64, 64, 3), 255, np.uint8), "PNG")
    verdict = gate.assess(white)
    canary = gate.canary(white, verdict)
    assert canary is not None
    assert canary.predictor.card.info.digest == digest_bytes(INT8)
    assert tmp_path / "model.int8.onnx" in watched_files(settings)


def test_precision_of_an_unknown_task_or_kind_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="expected tasks among general, got damage"):
        load_settings(GateSettings, precision={"damage": "int8"})
    monkeypatch.setenv("UTILITY_GATE_PRECISION", '{"general": "int4"}')
    with pytest.raises(ConfigError, match="precision"):
        load_settings(GateSettings)


def test_the_card_command_says_what_is_promised_and_what_serves(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = save_both(tmp_path)
    assert main(["card", "--predictor", str(folder)]) == 0
    shown = capsys.readouterr().out
    for part in (
        "Promised: of a photograph's useful copies at most 1.0% are rejected",
        "No promise that of its non-useful copies at most 5.0% pass, in the mean: too few",
        f"int8: SHA-256 {digest_bytes(INT8)}",
        "Made for: tests",
        "- not measured on drawings",
    ):
        assert part in shown
    assert "cannot be used" not in shown


def test_the_card_command_tells_of_a_broken_promise_and_of_broken_int8(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = save_both(tmp_path)
    edit(folder, lambda card: card["thresholds"].update(review=0.5))
    (folder / "model.int8.onnx").unlink()
    assert main(["card", "--predictor", str(folder)]) == 0
    shown = capsys.readouterr().out
    assert "it was made at 0.4000, the threshold is 0.5000" in shown
    assert "It cannot be used here" in shown
