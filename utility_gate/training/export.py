"""A trained network as a checkpoint that serves without torch."""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable, Container, Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import save_file

from utility_gate.checkpoint import ONNX, SAFETENSORS, ConformanceVector
from utility_gate.degrade import OWN_COPIES, Jpeg
from utility_gate.errors import CheckpointError
from utility_gate.images import Pixels, decode
from utility_gate.networks import open_session
from utility_gate.predictor import to_utility
from utility_gate.preprocess import Preprocess
from utility_gate.training.module import UtilityNet

log = logging.getLogger(__name__)

LOGIT_TOLERANCE = 0.02
"""Largest difference of a logit that storing weights in half precision may make."""

CONFORMANCE_TOLERANCE = 0.02
_LARGE = 1024


def export_onnx(net: UtilityNet, side: int, folder: Path) -> Path:
    """Write `model.safetensors` and `model.onnx` (batch free, weights stored as fp16, computed
    as fp32), and compare the latter with torch on random images.

    Raises:
        CheckpointError: if ONNX Runtime gives other logits than torch.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: value.contiguous() for name, value in net.state_dict().items()}
    save_file(state, folder / SAFETENSORS)
    example = torch.zeros(2, 3, side, side)
    path = folder / ONNX
    program = torch.onnx.export(
        net,
        (example,),
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        dynamo=True,
        verbose=False,
    )
    if program is None:
        raise CheckpointError("torch.onnx.export gave no program")
    model = program.model_proto
    onnx.save(store_half(strip_traces(model)), str(path))
    difference = compare_with_torch(net, path, side)
    log.info("%s differs from torch by at most %.2g in a logit", path, difference)
    if difference > LOGIT_TOLERANCE:
        raise CheckpointError(
            f"{path}: expected logits within {LOGIT_TOLERANCE} of torch's, got {difference:.3g}"
        )
    return path


def compare_with_torch(net: UtilityNet, path: Path, side: int) -> float:
    """Largest absolute difference of a logit between torch and ONNX Runtime on random images."""
    random = np.random.default_rng(0)
    images = random.normal(size=(4, 3, side, side)).astype(np.float32)
    (exported,) = open_session(path).run(None, {"images": images})
    with torch.inference_mode():
        expected = net(torch.from_numpy(images)).numpy()
    return float(np.abs(exported - expected).max())


def strip_traces(model: onnx.ModelProto) -> onnx.ModelProto:
    """Without what the exporter notes of the machine it ran on: file paths, source lines."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.value_info, *graph.input, *graph.output):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    for weight in graph.initializer:
        weight.ClearField("metadata_props")
        weight.ClearField("doc_string")
    return model


def store_half(model: onnx.ModelProto, only: Container[str] | None = None) -> onnx.ModelProto:
    """Large float weights, or those named in `only` alone, as fp16, each behind a Cast that ONNX
    Runtime folds when it loads."""
    casts = []
    for weight in model.graph.initializer:
        # Vectors are small and their error would be the whole channel's.
        if weight.data_type != TensorProto.FLOAT or len(weight.dims) < 2:
            continue
        if np.prod(weight.dims) < _LARGE:
            continue
        name = weight.name
        if only is not None and name not in only:
            continue
        half = numpy_helper.from_array(
            numpy_helper.to_array(weight).astype(np.float16), f"{name}.fp16"
        )
        weight.CopyFrom(half)
        casts.append(helper.make_node("Cast", [f"{name}.fp16"], [name], to=TensorProto.FLOAT))
    for cast in reversed(casts):
        model.graph.node.insert(0, cast)
    return model


def conformance_vectors(
    judge: Callable[[bytes], float], photos: Sequence[Pixels]
) -> tuple[ConformanceVector, ...]:
    """Each photo at JPEG qualities 90, 25 and 5, with the utility that `judge` gives it."""
    return tuple(
        ConformanceVector(
            image=base64.b64encode(data).decode(),
            utility=round(judge(data), 6),
            tolerance=CONFORMANCE_TOLERANCE,
        )
        for photo in photos
        for data in (Jpeg(quality).apply(photo) for quality in (90, 25, 5))
    )


def judge_of(
    path: Path, preprocess: Preprocess, scale_to: int, min_side: int, temperature: float
) -> Callable[[bytes], float]:
    """What an export says of an encoded image, as it serves: its utility, 0 of one too small."""
    session = open_session(path)

    def judge(data: bytes) -> float:
        image = decode(data, OWN_COPIES, scale_to=scale_to)
        if min(image.width, image.height) < min_side:
            return 0.0
        (logits,) = session.run(None, {"images": preprocess([image.pixels])})
        return float(to_utility(np.asarray(logits, np.float64), temperature)[0])

    return judge


def synthetic_photo() -> Pixels:
    """A drawn 160x160 scene for conformance vectors: gradients, a disc, texture."""
    y, x = np.mgrid[0:160, 0:160].astype(np.float64)
    disc = ((x - 90) ** 2 + (y - 70) ** 2 < 45**2)[..., None]
    sky = np.stack([80 + y / 2, 120 + y / 3, 220 - y / 2], axis=-1)
    stripes = np.stack([200 + 40 * np.sin(x / 4), 120 + 60 * np.cos(y / 7), x], axis=-1)
    return np.where(disc, stripes, sky).clip(0, 255).astype(np.uint8)
