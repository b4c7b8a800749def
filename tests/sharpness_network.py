"""ONNX classifiers that recognise class 1 in sharp images and class 0 in others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def save_sharpness_networks(folder: Path) -> None:
    """`one`, `two` and `three` with their entries in networks.toml; input 96x96."""
    kernel = np.zeros((1, 3, 3, 3), np.float32)
    kernel[0, :, 1, 1], kernel[0, :, 1, 2] = 1.0, -1.0
    weights = {
        "kernel": kernel,
        "w": np.array([[-1.0, 1.0]], np.float32),
        "b": np.array([11.0, -11.0], np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["input", "kernel"], ["edges"]),
        helper.make_node("Abs", ["edges"], ["strength"]),
        helper.make_node("GlobalAveragePool", ["strength"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w", "b"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "sharpness",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", 3, 96, 96])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 2])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    entries = []
    for name in ("one", "two", "three"):
        onnx.save(model, str(folder / f"{name}.onnx"))
        entries.append(f'[{name}]\nfile = "{name}.onnx"\ninput = 96\nresize = 96\n')
    (folder / "networks.toml").write_text("\n".join(entries))
