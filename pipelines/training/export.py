"""A trained classifier as files that serve without torch: ONNX in half precision, and in int8."""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import Tensor, nn

from pipelines.card import Vector
from pipelines.classifier import Answer
from pipelines.training.network import HeadedNet
from utility_gate.errors import CheckpointError
from utility_gate.networks import open_session
from utility_gate.training.export import store_half, strip_traces

HALF = "model.onnx"
INT8 = "model.int8.onnx"

LOGIT_TOLERANCE = 0.05
"""Largest difference of a logit that storing weights in half precision may make."""

CALIBRATION_IMAGES = 128


def trace(
    net: nn.Module, example: Tensor, outputs: Sequence[str], free: Mapping[int, Any]
) -> onnx.ModelProto:
    """A network as ONNX, float32, in eval mode; its input is `images` (shaped like `example`, but
    for the dimensions that are `free`, each a `torch.export.Dim`), `outputs` are the names of what
    it gives.

    Raises:
        CheckpointError: if torch gives no program.
    """
    program = torch.onnx.export(
        net.eval(),
        (example,),
        input_names=["images"],
        output_names=list(outputs),
        dynamic_shapes=(dict(free),),
        dynamo=True,
        verbose=False,
    )
    if program is None:
        raise CheckpointError("torch.onnx.export gave no program")
    return strip_traces(program.model_proto)


def to_onnx(net: HeadedNet, side: int) -> onnx.ModelProto:
    """The network as ONNX, float32, batch free; input `images` (N, 3, S, S), outputs `logits`
    (N, K) and `maps` (N, K, h, w)."""
    example = torch.zeros(2, 3, side, side)
    return trace(net, example, ["logits", "maps"], {0: torch.export.Dim("batch")})


def export_half(model: onnx.ModelProto, net: HeadedNet, side: int, folder: Path) -> Path:
    """Write `model.onnx`: `model`, which is `net`, weights stored as fp16, computed as fp32.

    Raises:
        CheckpointError: if ONNX Runtime gives other logits than torch.
    """
    path = folder / HALF
    half = onnx.ModelProto()
    half.CopyFrom(model)
    onnx.save(store_half(half), str(path))
    random = np.random.default_rng(0).normal(size=(2, 3, side, side)).astype(np.float32)
    exported = open_session(path).run(["logits"], {"images": random})[0]
    with torch.inference_mode():
        expected = net(torch.from_numpy(random))[0].numpy()
    difference = float(np.abs(exported - expected).max())
    if not difference <= LOGIT_TOLERANCE * max(1.0, float(np.abs(expected).max()) / 10):
        raise CheckpointError(f"{path}: a logit differs from torch's by {difference:.3g}")
    return path


def export_int8(
    model: onnx.ModelProto, batches: Sequence[npt.NDArray[np.float32]], folder: Path
) -> Path:
    """Write `model.int8.onnx`: `model` with uint8 activations, int8 weights per channel, as QDQ.
    The ranges come from `batches`, network inputs (N, 3, S, S)."""
    path = folder / INT8
    with tempfile.TemporaryDirectory() as scratch:
        plain, ready = Path(scratch) / "plain.onnx", Path(scratch) / "ready.onnx"
        onnx.save(model, str(plain))
        quant_pre_process(str(plain), str(ready), skip_symbolic_shape=True)
        quantize_static(
            str(ready), str(path), _Batches(batches), quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, per_channel=True,
        )  # fmt: skip
    onnx.save(strip_traces(onnx.load(str(path))), str(path))
    return path


class _Batches(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, batches: Sequence[npt.NDArray[np.float32]]) -> None:
        self._left: Iterator[npt.NDArray[np.float32]] = iter(batches)

    def get_next(self) -> dict[str, Any] | None:
        batch = next(self._left, None)
        return None if batch is None else {"images": batch}


def make_vector(data: bytes, answers: Mapping[str, Answer]) -> Vector:
    """A conformance vector: an encoded image and each head's likeliest class."""
    expected = {
        f"{head}/{answer.best}": round(float(answer.probabilities.max()), 6)
        for head, answer in answers.items()
    }
    return Vector(image=base64.b64encode(data).decode(), expected=expected)
