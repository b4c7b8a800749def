"""A network in int8: what is quantised, what is not, and what becomes of the checkpoint."""

from __future__ import annotations

import base64
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from cli.main import main
from tests.conftest import draw, encode
from tests.networks import build
from utility_gate.checkpoint import Card, ConformanceVector, Weights, save_card
from utility_gate.degrade import Jpeg, to_json
from utility_gate.errors import CheckpointError, ConfigError
from utility_gate.files import digest_bytes
from utility_gate.networks import open_session
from utility_gate.predictor import UtilityPredictor, to_utility
from utility_gate.preprocess import Preprocess
from utility_gate.split import split_of
from utility_gate.tables import write_labels
from utility_gate.training.export import store_half
from utility_gate.training.quantize import (
    Recipe,
    float_nodes,
    fold_casts,
    name_nodes,
    quantize_onnx,
)
from utility_gate.training.variant import make_variant, record, to_markdown
from utility_gate.types import Label, Thresholds

SIDE = 48
NORM = {"mean": (128.0,) * 3, "std": (32.0,) * 3}
INT8 = Recipe(first=0)


def edges(gain: float = 8.0, middle: float = 0.5) -> bytes:
    """Useful is what has fine structure: two convolutions with a ReLU and a ReLU6, a classifier
    whose softmax is looked at, and a head."""
    kernel = np.zeros((4, 3, 3, 3), np.float32)
    for number, (row, column) in enumerate(((0, 1), (2, 1), (1, 0), (1, 2))):
        kernel[number, :, 1, 1], kernel[number, :, row, column] = 1, -1
    head = np.zeros((40, 2), np.float32)
    head[:4] = [[-gain, gain]] * 4
    nodes = [
        helper.make_node("Conv", ["images", "kernel"], ["e"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["e"], ["r"]),
        helper.make_node("Conv", ["r", "mix", "none"], ["m"]),
        helper.make_node("Clip", ["m", "low", "high"], ["c"]),
        helper.make_node("GlobalAveragePool", ["c"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("MatMul", ["f", "classes"], ["scores"], name="classifier"),
        helper.make_node("Softmax", ["scores"], ["sure"]),
        helper.make_node("Concat", ["f", "sure"], ["seen"], axis=1),
        helper.make_node("Gemm", ["seen", "head", "bias"], ["logits"], name="head"),
    ]
    return build(
        nodes,
        {"images": (TensorProto.FLOAT, ["n", 3, SIDE, SIDE])},
        {"logits": ["n", 2]},
        {
            "kernel": kernel,
            "mix": np.eye(4, dtype=np.float32)[:, :, None, None],
            "none": np.zeros(4, np.float32),
            "low": np.array(0, np.float32),
            "high": np.array(6, np.float32),
            "classes": np.ones((4, 36), np.float32),
            "head": head,
            "bias": np.array([4 * gain * middle, -4 * gain * middle], np.float32),
        },
    )


def grainy(seed: int) -> np.ndarray:
    """A drawn scene with strong grain, 96x72."""
    grain = np.random.default_rng(seed).normal(0, 25, (72, 96, 1))
    return (draw(96, 72, seed=seed) + grain).clip(0, 255).astype(np.uint8)


def looks(count: int, seed: int = 0) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    return [random.normal(0, 0.5, (2, 3, SIDE, SIDE)).astype(np.float32) for _ in range(count)]


def run(weights: bytes, batch: np.ndarray) -> np.ndarray:
    (logits,) = open_session(weights).run(None, {"images": batch})
    return np.asarray(logits, np.float64)


def operators(weights: bytes) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load_from_string(weights).graph.node)


def test_a_quantised_network_gives_nearly_the_same_logits() -> None:
    weights = edges()
    quantized = quantize_onnx(weights, looks(6), INT8)
    (batch,) = looks(1, seed=9)
    utility, other = (to_utility(run(each, batch), 1.0) for each in (weights, quantized))
    assert other == pytest.approx(utility, abs=0.05)
    assert not np.array_equal(utility, other)


def test_convolutions_are_int8_with_a_scale_a_channel_and_their_activations_are_gone() -> None:
    quantized = onnx.load_from_string(quantize_onnx(edges(), looks(3), INT8))
    found = Counter(node.op_type for node in quantized.graph.node)
    assert (found["Relu"], found["Clip"], found["Conv"]) == (0, 0, 2)
    stored = {weight.name: weight for weight in quantized.graph.initializer}
    assert stored["kernel_quantized"].data_type == TensorProto.INT8
    assert list(stored["kernel_scale"].dims) == [4]
    assert stored["images_zero_point"].data_type == TensorProto.UINT8


def test_the_head_and_what_a_softmax_looks_at_stay_in_float() -> None:
    model = name_nodes(onnx.load_from_string(edges()))
    assert float_nodes(model) == {"classifier", "head"}
    assert float_nodes(model, first=1) == {"classifier", "head", "Conv_0"}
    stored = onnx.load_from_string(quantize_onnx(edges(), looks(2), INT8)).graph
    floats = {w.name for w in stored.initializer if w.data_type == TensorProto.FLOAT}
    assert {"classes", "head"} <= floats


def test_a_hidden_layer_is_quantised() -> None:
    nodes = [
        helper.make_node("Flatten", ["images"], ["f"]),
        helper.make_node("Gemm", ["f", "a"], ["h"], name="hidden"),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Gemm", ["r", "b"], ["logits"], name="last"),
    ]
    random = np.random.default_rng(0)
    weights = build(
        nodes,
        {"images": (TensorProto.FLOAT, ["n", 3, SIDE, SIDE])},
        {"logits": ["n", 2]},
        {
            "a": random.normal(0, 0.02, (3 * SIDE * SIDE, 8)).astype(np.float32),
            "b": random.normal(0, 1, (8, 2)).astype(np.float32),
        },
    )
    assert float_nodes(onnx.load_from_string(weights)) == {"last"}
    quantized = quantize_onnx(weights, looks(4), INT8)
    (batch,) = looks(1, seed=3)
    assert run(quantized, batch) == pytest.approx(run(weights, batch), abs=0.2)
    assert len(quantized) < len(weights) / 2


def test_weights_behind_casts_are_found() -> None:
    weights = edges()
    model = onnx.load_from_string(weights)
    for weight in model.graph.initializer:  # large ones; only the graph is looked at
        if weight.name in ("kernel", "mix"):
            values = np.tile(onnx.numpy_helper.to_array(weight), (1024 // weight.dims[0], 1, 1, 1))
            weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    halved = store_half(model)
    assert any(node.op_type == "Cast" for node in halved.graph.node)
    folded = fold_casts(halved)
    assert not any(node.op_type == "Cast" for node in folded.graph.node)
    assert all(w.data_type == TensorProto.FLOAT for w in folded.graph.initializer)


def test_the_same_arguments_give_the_same_bytes_and_tell_nothing_of_the_machine() -> None:
    first, second = (quantize_onnx(edges(), looks(3), INT8) for _ in range(2))
    assert first == second
    for trace in (b"/tmp", b"/work", b"/home", b"onnx.infer"):
        assert trace not in first


def test_seven_bits_keep_weights_within_64() -> None:
    narrow = onnx.load_from_string(
        quantize_onnx(edges(), looks(2), Recipe(first=0, reduce_range=True))
    )
    stored = {weight.name: weight for weight in narrow.graph.initializer}
    assert np.abs(onnx.numpy_helper.to_array(stored["kernel_quantized"])).max() <= 64


def test_nodes_can_be_excluded_but_not_all_and_not_unknown_ones() -> None:
    partly = quantize_onnx(edges(), looks(2), Recipe(first=1))
    assert operators(partly)["QuantizeLinear"] < operators(
        quantize_onnx(edges(), looks(2), INT8)
    )["QuantizeLinear"]  # fmt: skip
    with pytest.raises(ConfigError, match="expected something to quantise"):
        quantize_onnx(edges(), looks(2), Recipe(first=2))
    with pytest.raises(ConfigError, match="the network has no nowhere"):
        quantize_onnx(edges(), looks(2), Recipe(first=0, exclude=("nowhere",)))
    with pytest.raises(CheckpointError, match="cannot be quantised"):
        quantize_onnx(edges(), [], INT8)


@pytest.mark.parametrize("wrong", [{"percentile": 50}, {"percentile": 101}, {"first": -1}])
def test_impossible_recipes_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected a percentile"):
        Recipe(**wrong)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty grainy sources at quality 90, which is useful, and 5, which loses the grain."""
    folder = tmp_path_factory.mktemp("pictures")
    labels = []
    for number in range(30):
        pixels = grainy(number)
        data = encode(pixels, "PNG")
        (folder / f"{number}.png").write_bytes(data)
        digest = digest_bytes(data)
        for quality, value in ((90, 1), (5, 0)):
            labels.append(
                Label(
                    source=f"{number}.png", source_digest=digest, split=split_of(digest),
                    degradation="jpeg", quality=quality, parameters=to_json(Jpeg(quality)),
                    image_digest=digest_bytes(Jpeg(quality).apply(pixels)), label=value,
                    utility=None, useful_votes=2 * value, non_useful_votes=2 - 2 * value,
                    networks=2,
                )
            )  # fmt: skip
    write_labels(labels, folder / "labels.parquet", {"voters": ["x", "y"], "networks": {}})
    return folder


def save_edges(folder: Path, **network: float) -> Path:
    """A checkpoint around `edges`."""
    folder.mkdir(parents=True)
    weights = edges(**network)
    (folder / "model.onnx").write_bytes(weights)
    preprocess = Preprocess(SIDE, SIDE, **NORM)
    pixels = grainy(99)
    utility = to_utility(run(weights, preprocess([pixels])), 1.0)
    card = Card(
        name="edges",
        version="1",
        task="general",
        weights=Weights(file="model.onnx", sha256=digest_bytes(weights)),
        preprocess=preprocess,
        scale_to=64,
        min_side=16,
        temperature=1.0,
        thresholds=Thresholds(useful=0.6, review=0.4),
        training={"config": {"validation_fraction": 0.3}},
        conformance=(
            ConformanceVector(
                image=base64.b64encode(encode(pixels, "PNG")).decode(),
                utility=round(float(utility[0]), 6),
                tolerance=0.02,
            ),
            ConformanceVector(
                image=base64.b64encode(encode(draw(12, 12), "PNG")).decode(),
                utility=0,  # too small to judge
                tolerance=0.02,
            ),
        ),
    )
    save_card(card, folder)
    return folder


def quantize(folder: Path, pictures: Path, *more: str) -> int:
    labels = str(pictures / "labels.parquet")
    return main(
        ["quantize", "--predictor", str(folder), "--images", str(pictures), "--labels", labels,
         "--copies", "12", *more]
    )  # fmt: skip


def test_a_checkpoint_gets_an_int8_variant_and_says_how_good_it_is(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = save_edges(tmp_path / "p")
    before = json.loads((folder / "card.json").read_text())
    assert quantize(folder, pictures, "--first", "0") == 0
    assert "| AUROC | " in capsys.readouterr().out
    card = UtilityPredictor.load(folder).card
    assert card.quantized is not None
    int8 = UtilityPredictor.load(folder, precision="int8").card
    assert int8.info.digest == digest_bytes((folder / "model.int8.onnx").read_bytes())
    assert int8.conformance[1].utility == 0
    measured = card.quantized.metrics
    assert measured["validation"]["int8"]["auroc"] > 0.95
    assert 0 < measured["validation"]["largest_difference"] < 0.2
    assert measured["calibration_copies"] == 12
    after = json.loads((folder / "card.json").read_text())
    assert {k: after[k] for k in before} == before | {"quantized": after["quantized"]}
    assert sorted(p.name for p in folder.iterdir()) == [
        "card.json", "model.int8.onnx", "model.onnx",
    ]  # fmt: skip


def test_one_that_is_worse_is_not_recorded(pictures: Path, tmp_path: Path) -> None:
    folder = save_edges(tmp_path / "p")
    variant = make_variant(folder, [pictures / "labels.parquet"], pictures, INT8, 8)
    assert "utilities differ by" in to_markdown(variant.comparison)
    before = (folder / "card.json").read_bytes()
    with pytest.raises(ConfigError, match="expected a validation AUROC of at least"):
        record(variant, folder, max_loss=-1.0)
    assert not (folder / "model.int8.onnx").exists()
    assert (folder / "card.json").read_bytes() == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--copies", "0"], "--copies of 1 or more"),
        (["--max-loss", "-1"], "--max-loss of 0 or more"),
        (["--percentile", "3"], "expected a percentile"),
        (["--predictor", "embedded"], "copy it first"),
    ],
)
def test_impossible_options_are_named(
    pictures: Path, tmp_path: Path, options: list[str], message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert quantize(tmp_path, pictures, *options) == 1
    assert message in capsys.readouterr().err
