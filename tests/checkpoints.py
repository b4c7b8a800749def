"""Tiny ONNX checkpoints of the pipelines that really look at colours, for tests.

Red is a scratch, green a dent, blue no car, grey a car without damage.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from pipelines.card import ClassifierCard, DetectorCard, HeadCard, Vector
from tests.conftest import encode
from tests.networks import build
from utility_gate.checkpoint import Weights, save_card
from utility_gate.files import digest_bytes
from utility_gate.preprocess import Preprocess, Resampling

RED, GREEN, BLUE, GREY = (255, 0, 0), (0, 255, 0), (0, 0, 255), (128, 128, 128)
YELLOW, ORANGE = (255, 255, 0), (255, 128, 0)
MEAN, STD = (128.0,) * 3, (32.0,) * 3

INPUT = 32
"""Side of the classifiers' input; their maps are 4 x 4."""

SIDE = 128
"""Side of the detector's input."""

DAMAGE_HEADS = (
    HeadCard(name="type", classes=("door_scratch", "door_dent", "none", "no_car")),
    HeadCard(name="severity", classes=("minor", "severe")),
    HeadCard(name="location", classes=("front", "rear"), multi_label=True),
)
_DAMAGE_WEIGHTS = [
    (0.5, -0.5, -0.5), (-0.5, 0.5, -0.5), (0, 0, 0), (-0.5, -0.5, 0.5),
    (0, 0, 0), (0.5, 0, 0),
    (0, 0, 0), (1, 0, 0),
]  # fmt: skip
_DAMAGE_BIAS = [0, 0, 1, 0, 0, 0, -3, 0]

CAR_HEAD = HeadCard(
    name="model",
    classes=("Audi TT Coupe 2012", "Audi A5 Coupe 2012", "BMW M3 Coupe 2012", "no car"),
)
_CAR_WEIGHTS = [(0.5, 0.25, -0.5), (0.5, -0.25, -0.5), (-0.5, 0.5, -0.5), (-0.5, -0.5, 0.5)]
THRESHOLDS = {"model_from": 0.6, "make_from": 0.7}


def plain(colour: tuple[int, int, int], width: int = 256, height: int = 256) -> np.ndarray:
    """One colour, HWC uint8 RGB."""
    return np.full((height, width, 3), colour, np.uint8)


def with_block(
    colour: tuple[int, int, int], box: tuple[int, int, int, int] = (64, 64, 128, 128),
    width: int = 256, height: int = 256,
) -> np.ndarray:  # fmt: skip
    """A grey image with a block, xyxy; the default one fills a cell of the detector."""
    pixels = plain(GREY, width, height)
    pixels[box[1] : box[3], box[0] : box[2]] = colour
    return pixels


def save_damage(folder: Path, **changes: Any) -> Path:
    """A damage pipeline; `changes` are the classifier card's."""
    save_detector(folder / "detector")
    vectors = (vector(plain(RED), {"type/door_scratch": 0.992}),)
    card = {"heads": DAMAGE_HEADS, "conformance": vectors} | changes
    save_classifier(folder / "classifier", _DAMAGE_WEIGHTS, _DAMAGE_BIAS, **card)
    return folder


def save_car_model(folder: Path, *, finds: bool = False, **changes: Any) -> Path:
    """A car-model pipeline; `changes` are the classifier card's. One that `finds` cars takes a red
    cell of 32 pixels or a green one of 64 for a car."""
    if finds:
        save_detector(folder / "detector")
    vectors = (vector(plain(GREEN), {"model/BMW M3 Coupe 2012": 0.992}),)
    card = {"heads": (CAR_HEAD,), "thresholds": THRESHOLDS, "conformance": vectors} | changes
    save_classifier(folder / "classifier", _CAR_WEIGHTS, [0] * 4, **card)
    return folder


def save_classifier(folder: Path, weight: Any, bias: Any, **changes: Any) -> None:
    """Logits are the means of maps, which are linear in the colours."""
    nodes = [
        helper.make_node("AveragePool", ["images"], ["cells"], kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("Conv", ["cells", "w", "b"], ["maps"]),
        helper.make_node("GlobalAveragePool", ["maps"], ["means"]),
        helper.make_node("Flatten", ["means"], ["logits"]),
    ]
    count = len(bias)
    model = build(
        nodes,
        {"images": (TensorProto.FLOAT, ["n", 3, INPUT, INPUT])},
        {"logits": ["n", count], "maps": ["n", count, 4, 4]},
        {"w": np.array(weight, np.float32)[:, :, None, None], "b": np.array(bias, np.float32)},
    )
    values: dict[str, Any] = {
        "name": "colours",
        "version": "1",
        "preprocess": Preprocess(
            INPUT, INPUT, MEAN, STD, resampling=Resampling.BILINEAR, fit="stretch"
        ),
        "scale_to": INPUT,
    }
    _save(ClassifierCard, folder, model, values | changes)


def save_detector(folder: Path, model: bytes | None = None, **changes: Any) -> Path:
    """A cell of 32 pixels that is red is a scratch, one of 64 that is green a dent; their boxes are
    the cells themselves."""
    block = {"scratch/score": 0.94, "scratch/left": 0.25, "scratch/bottom": 0.5, "dent/score": 0}
    values: dict[str, Any] = {
        "name": "cells",
        "version": "2",
        "side": SIDE,
        "mean": MEAN,
        "std": STD,
        "classes": ("scratch", "dent"),
        "strides": (32, 64),
        "score": 0.5,
        "overlap": 0.5,
        "conformance": (vector(with_block(RED), block),),
    }
    _save(DetectorCard, folder, model or detector_network(), values | changes)
    return folder


def detector_network() -> bytes:
    """Outputs `logits`, `distances` and `centerness` of two levels."""
    weights: dict[str, np.ndarray] = {
        "logits_32_w": _conv([(0.5, -0.5, -0.5), (0, 0, 0)]),
        "logits_32_b": np.array([-4, -20], np.float32),
        "logits_64_w": _conv([(0, 0, 0), (-0.5, 0.5, -0.5)]),
        "logits_64_b": np.array([-20, -4], np.float32),
        "distances_b": np.array([0, 0, 1, 1], np.float32),
        "distances_w": _conv([(0, 0, 0)] * 4),
        "centerness_b": np.array([10], np.float32),
        "centerness_w": _conv([(0, 0, 0)]),
    }
    outputs = {"logits": 2, "distances": 4, "centerness": 1}
    nodes = []
    for stride in (32, 64):
        nodes.append(
            helper.make_node(
                "AveragePool",
                ["images"],
                [f"cells_{stride}"],
                kernel_shape=[stride] * 2,
                strides=[stride] * 2,
                ceil_mode=1,
            )
        )
        for name, channels in outputs.items():
            key = f"{name}_{stride}" if name == "logits" else name
            at = f"{name}_{stride}"
            nodes += [
                helper.make_node("Conv", [f"cells_{stride}", f"{key}_w", f"{key}_b"], [f"{at}_m"]),
                helper.make_node("Transpose", [f"{at}_m"], [f"{at}_t"], perm=[0, 2, 3, 1]),
                helper.make_node("Reshape", [f"{at}_t", f"to_{channels}"], [f"{at}_r"]),
            ]
    for name, channels in outputs.items():
        weights[f"to_{channels}"] = np.array([1, -1, channels], np.int64)
        nodes.append(helper.make_node("Concat", [f"{name}_32_r", f"{name}_64_r"], [name], axis=1))
    return build(
        nodes,
        {"images": (TensorProto.FLOAT, [1, 3, "h", "w"])},
        {name: [1, "a", channels] for name, channels in outputs.items()},
        weights,
    )


def _conv(rows: list[tuple[float, float, float]]) -> np.ndarray:
    return np.array(rows, np.float32)[:, :, None, None]


def vector(pixels: np.ndarray, expected: dict[str, float]) -> Vector:
    image = base64.b64encode(encode(pixels, "PNG")).decode()
    return Vector(image=image, expected=expected, tolerance=0.02)


def _save(kind: Any, folder: Path, model: bytes, values: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(model)
    weights = Weights(file="model.onnx", sha256=digest_bytes(model))
    save_card(kind(**({"weights": weights} | values)), folder)
