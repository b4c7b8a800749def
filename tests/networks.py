"""Tiny ONNX networks that really look at the image, for tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Shape = Sequence[int | str]


def build(
    nodes: list[onnx.NodeProto],
    inputs: dict[str, tuple[int, Shape]],
    outputs: dict[str, Shape],
    weights: dict[str, np.ndarray],
) -> bytes:
    """A checked model; `inputs` by name to element type and shape, outputs are float32."""
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(name, *value) for name, value in inputs.items()],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def pooled_network(
    weight: np.ndarray, bias: np.ndarray, side: int, *, last: str = "Identity", name: str = "input"
) -> bytes:
    """Mean colour (3,) @ weight (3, classes) + bias, through `last` (Identity or Softmax)."""
    nodes = [
        helper.make_node("GlobalAveragePool", [name], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w", "b"], ["scores"]),
        helper.make_node(last, ["scores"], ["logits"]),
    ]
    return build(
        nodes,
        {name: (TensorProto.FLOAT, ["n", 3, side, side])},
        {"logits": ["n", len(bias)]},
        {"w": weight.astype(np.float32), "b": bias.astype(np.float32)},
    )


def save_colour_network(path: Path, sharpness: float = 1.0, classes: int = 3) -> None:
    """Class 0, 1, 2: the image is mostly red, green, blue."""
    weight = np.zeros((3, classes))
    weight[:, :3] = np.eye(3) * sharpness
    path.write_bytes(pooled_network(weight, np.zeros(classes), 16))


def save_sharpness_networks(folder: Path) -> None:
    """Class 1 in sharp images, class 0 in others: `one`, `two` and `three` with their entries in
    networks.toml; input 96x96."""
    kernel = np.zeros((1, 3, 3, 3), np.float32)
    kernel[0, :, 1, 1], kernel[0, :, 1, 2] = 1.0, -1.0
    nodes = [
        helper.make_node("Conv", ["input", "kernel"], ["edges"]),
        helper.make_node("Abs", ["edges"], ["strength"]),
        helper.make_node("GlobalAveragePool", ["strength"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w", "b"], ["logits"]),
    ]
    model = build(
        nodes,
        {"input": (TensorProto.FLOAT, ["n", 3, 96, 96])},
        {"logits": ["n", 2]},
        {
            "kernel": kernel,
            "w": np.array([[-1.0, 1.0]], np.float32),
            "b": np.array([11.0, -11.0], np.float32),
        },
    )
    for name in ("one", "two", "three"):
        (folder / f"{name}.onnx").write_bytes(model)
    write_entries(folder, ["one", "two", "three"], side=96)


def write_entries(folder: Path, names: Sequence[str], side: int = 16) -> Path:
    """networks.toml with one classifier entry per name."""
    path = folder / "networks.toml"
    entries = (
        f'[{name}]\nfile = "{name}.onnx"\ninput = {side}\nresize = {side}\n' for name in names
    )
    path.write_text("\n".join(entries))
    return path


DETECTOR_ENTRY = """
[{name}]
file = "{name}.onnx"
task = "detection"
input = 32
categories = ["thing", "other"]
outputs = {{ boxes = "boxes", classes = "classes", scores = "scores", count = "count" }}
"""


def save_detector(folder: Path, name: str = "watcher", **entry: Any) -> Path:
    """Always the same three boxes (yxyx, parts of the image); a box is surer the more there is of
    its colour: a `thing` in the middle by red, an `other` in the upper left by green, and a
    third one, which is padding. Appends its entry to networks.toml."""
    boxes = np.array(
        [[[0.25, 0.25, 0.75, 0.75], [0.0, 0.0, 0.5, 0.4], [0.0, 0.0, 1.0, 1.0]]], np.float32
    )
    pick = np.zeros((3, 3), np.float32)
    pick[0, 0] = pick[1, 1] = 1 / 255
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["float"], ["mean"], axes=[1, 2], keepdims=0),
        helper.make_node("MatMul", ["mean", "pick"], ["scores"]),
        *(
            helper.make_node("Identity", [f"the_{output}"], [output])
            for output in ("boxes", "classes", "count")
        ),
    ]
    model = build(
        nodes,
        {"image": (TensorProto.UINT8, [1, 32, 32, 3])},
        {"boxes": [1, 3, 4], "classes": [1, 3], "scores": [1, 3], "count": [1]},
        {
            "pick": pick,
            "the_boxes": boxes,
            "the_classes": np.array([[0, 1, 0]], np.float32),
            "the_count": np.array([2], np.float32),
        },
    )
    (folder / f"{name}.onnx").write_bytes(model)
    path = folder / "networks.toml"
    with path.open("a") as file:
        file.write(DETECTOR_ENTRY.format(name=name))
        file.writelines(f"{key} = {value}\n" for key, value in entry.items())
    return path
