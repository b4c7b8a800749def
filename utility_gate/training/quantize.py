"""A network in int8: static quantisation after training, in the form that ONNX Runtime's CPU
kernels are fastest with.

Every convolution and matrix product of the trunk gets a QuantizeLinear and a DequantizeLinear
around it (QDQ), which ONNX Runtime fuses into integer kernels when it loads. Activations are uint8
with one scale a tensor, weights int8 with one scale an output channel; int8 activations gain
nothing on x86. What decides stays in float: see `float_nodes`.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from utility_gate.errors import CheckpointError, ConfigError
from utility_gate.training.export import store_half, strip_traces

Batch = npt.NDArray[np.float32]

WEIGHTED = frozenset({"Conv", "Gemm", "MatMul"})
"""What is computed in int8."""

ACTIVATIONS = ("Relu", "Clip")
"""Gone where they follow one of these: uint8 from 0 to the largest value clips by itself. (Of
ReLU6 as torch exports it that is a Clip.) Where they follow anything else they stay in float."""

DECIDING = frozenset({"LogSoftmax", "ReduceLogSumExp", "Softmax", "TopK"})
"""What tells classes apart by small differences, so that what it is given stays in float."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a network is quantised.

    An activation's range ends at this `percentile` (50 to 100) of what calibration saw; of
    MobileNet-v2 the whole range (MinMax) and the one with the least entropy lose several times as
    much. The `first` convolutions stay in float, and so do the nodes named in `exclude`. None by
    default: rounding to 8 bits before anything else happens makes the utilities the same on
    CPUs that round the last bit of a float differently.

    `reduce_range` takes 7 bits for weights in place of 8. x86 CPUs without VNNI add two products
    of uint8 and int8 in 16 bits, where they saturate: there 8 bits compute something else, and are
    refused by the conformance vectors. With 7 bits the sum cannot overflow on any CPU; they cost
    some accuracy. CPUs with VNNI (Intel since Cascade Lake, AMD since Zen 4) and ARM need it not.

    Raises:
        ValueError: if a field is out of range.
    """

    percentile: float = 99.99
    first: int = 0
    exclude: tuple[str, ...] = ()
    reduce_range: bool = False

    def __post_init__(self) -> None:
        if not 50 < self.percentile <= 100 or self.first < 0:
            raise ValueError(
                f"expected a percentile in (50, 100] and first >= 0, got {self.percentile} and "
                f"{self.first}"
            )


def quantize_onnx(weights: bytes, batches: Sequence[Batch], recipe: Recipe | None = None) -> bytes:
    """The ONNX network `weights`, of one input, in int8; the same bytes for the same arguments.

    `batches` are what it may see, as its input takes it ((N, 3, S, S) normalised float32); the
    activations of one batch are in memory at a time. Weights that stay in float are stored in half
    precision.

    Raises:
        ConfigError: if `recipe` excludes a node that is not there, or leaves nothing to quantise.
        CheckpointError: if ONNX Runtime cannot quantise the network.
    """
    recipe = recipe or Recipe()
    model = name_nodes(fold_casts(onnx.load_from_string(weights)))
    keep = float_nodes(model, recipe.first) | set(_known(model, recipe.exclude))
    weighted = [node.name for node in model.graph.node if node.op_type in WEIGHTED]
    if keep.issuperset(weighted):
        raise ConfigError(
            f"expected something to quantise, all of {len(weighted)} convolutions and products "
            "stay in float; exclude fewer"
        )
    try:
        quantized = _quantize(model, _Batches(model.graph.input[0].name, batches), keep, recipe)
    except Exception as error:  # ONNX Runtime's quantiser raises a dozen unrelated types
        raise CheckpointError(f"the network cannot be quantised: {error}") from error
    quantized = store_half(strip_traces(quantized), only=_float_weights(quantized))
    return bytes(quantized.SerializeToString(deterministic=True))


def fold_casts(model: onnx.ModelProto) -> onnx.ModelProto:
    """Weights that `export.store_half` stored in half precision, in float again and without their
    Cast: the quantiser looks for weights, not for casts of them."""
    halves = {weight.name: weight for weight in model.graph.initializer}
    for node in [node for node in model.graph.node if node.op_type == "Cast"]:
        half = halves.get(node.input[0])
        if half is not None and half.data_type == TensorProto.FLOAT16:
            values = numpy_helper.to_array(half).astype(np.float32)
            half.CopyFrom(numpy_helper.from_array(values, node.output[0]))
            model.graph.node.remove(node)
    return model


def name_nodes(model: onnx.ModelProto) -> onnx.ModelProto:
    """A name for each node that has none: nodes are excluded by their names."""
    for number, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{number}"
    return model


def float_nodes(model: onnx.ModelProto, first: int = 0) -> set[str]:
    """Names of the convolutions and matrix products that stay in float.

    The `first` convolutions; and each product or convolution from which a softmax, a top-k or an
    output of the network is reached without passing another one: a classifier whose probabilities
    are looked at, and the head.
    """
    readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in model.graph.node:
        for name in node.input:
            readers[name].append(node)
    outputs = {output.name for output in model.graph.output}

    def decides(node: onnx.NodeProto) -> bool:
        waiting, seen = list(node.output), set(node.output)
        while waiting:
            name = waiting.pop()
            if name in outputs or any(reader.op_type in DECIDING for reader in readers[name]):
                return True
            behind = {
                output
                for reader in readers[name]
                if reader.op_type not in WEIGHTED
                for output in reader.output
            } - seen
            waiting += behind
            seen |= behind
        return False

    convolutions = [node.name for node in model.graph.node if node.op_type == "Conv"]
    deciding = {
        node.name for node in model.graph.node if node.op_type in WEIGHTED and decides(node)
    }
    return deciding | set(convolutions[:first])


class _Batches(CalibrationDataReader):  # type: ignore[misc]
    """Batches as the calibrator asks for them: a range of them at a time."""

    def __init__(self, name: str, batches: Sequence[Batch]) -> None:
        self._name, self._batches = name, batches
        self.set_range(0, len(batches))

    def __len__(self) -> int:
        return len(self._batches)

    def set_range(self, start_index: int, end_index: int) -> None:
        """Go on at `start_index`, up to `end_index`."""
        self._left: Iterator[Batch] = iter(self._batches[start_index:end_index])

    def get_next(self) -> dict[str, Batch] | None:
        """The next batch by the input's name; None after the last one."""
        batch = next(self._left, None)
        return None if batch is None else {self._name: batch}


def _quantize(
    model: onnx.ModelProto, batches: _Batches, keep: set[str], recipe: Recipe
) -> onnx.ModelProto:
    with tempfile.TemporaryDirectory() as name, contextlib.redirect_stdout(io.StringIO()):
        given, prepared, made = (Path(name) / f"{step}.onnx" for step in ("in", "shaped", "out"))
        onnx.save(model, str(given))
        # Shapes alone: the exporter has optimised already.
        quant_pre_process(str(given), str(prepared), skip_optimization=True,
                          skip_symbolic_shape=True)  # fmt: skip
        quantize_static(
            str(prepared),
            str(made),
            batches,
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=[*sorted(WEIGHTED), *ACTIVATIONS],
            per_channel=True,
            reduce_range=recipe.reduce_range,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=sorted(keep),
            calibrate_method=CalibrationMethod.Percentile,
            extra_options={"CalibPercentile": recipe.percentile, "CalibStridedMinMax": 1},
        )
        return onnx.load(str(made))


def _known(model: onnx.ModelProto, names: Sequence[str]) -> Sequence[str]:
    unknown = set(names) - {node.name for node in model.graph.node}
    if unknown:
        raise ConfigError(
            f"expected names of nodes to exclude, the network has no {', '.join(sorted(unknown))}"
        )
    return names


def _float_weights(model: onnx.ModelProto) -> set[str]:
    """Weights and biases of what stays in float. Scales stay whole: they are no weights."""
    return {
        name for node in model.graph.node if node.op_type in WEIGHTED for name in node.input[1:]
    }
