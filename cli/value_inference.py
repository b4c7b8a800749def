"""A model of the Open Inference Protocol as the pipeline of `utility-gate value`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cli.value_pipelines import LONGEST_SECONDS, TimedPipeline, ask
from server.tensors import to_strings
from utility_gate.channels import open_channel
from utility_gate.errors import ConfigError, NetworkError, TensorError

# In one process with tritonclient's messages these clash; nobody has both here.
from utility_gate.inference import open_inference_pb2 as pb
from utility_gate.inference import open_inference_pb2_grpc as pb_grpc


def open_inference(options: argparse.Namespace) -> TimedPipeline:
    """A model that takes one encoded image, BYTES of shape [1], and answers with probabilities or
    with a class.

    Raises:
        ConfigError: if an option is missing, or the file of classes cannot be read.
    """
    target: str | None = options.pipeline_target
    if target is None or options.model is None:
        raise ConfigError("--pipeline inference: expected --pipeline-target and --model NAME")
    names = _read_classes(options.classes)
    channel = open_channel(target)
    stub = pb_grpc.GRPCInferenceServiceStub(channel)

    def answer(image: bytes) -> str:
        request = pb.ModelInferRequest(model_name=options.model)
        tensor = request.inputs.add(name=options.input, datatype="BYTES", shape=[1])
        tensor.contents.bytes_contents.append(image)
        request.outputs.add(name=options.output)
        told = ask(target, lambda: stub.ModelInfer(request, timeout=LONGEST_SECONDS))
        return to_class(told, options.output, names)

    return TimedPipeline(f"{options.model} (Open Inference Protocol)", answer, close=channel.close)


def to_class(response: pb.ModelInferResponse, output: str, names: Sequence[str]) -> str:
    """The class that an output names, or whose probability is the greatest.

    Raises:
        NetworkError: if there is no such output, or it holds something else.
    """
    index = next((i for i, each in enumerate(response.outputs) if each.name == output), None)
    if index is None:
        others = ", ".join(each.name for each in response.outputs)
        raise NetworkError(f"expected an output {output!r}, got {others or 'none'}")
    tensor, raws = response.outputs[index], response.raw_output_contents
    raw = raws[index] if index < len(raws) else b""
    if tensor.datatype == "BYTES":
        try:
            texts = to_strings(raw, 1) if raw else list(tensor.contents.bytes_contents)
            (text,) = texts
            return text.decode()
        except (TensorError, ValueError) as error:
            raise NetworkError(f"output {output!r}: expected one class as text: {error}") from error
    if tensor.datatype not in ("FP32", "FP64"):
        raise NetworkError(
            f"output {output!r}: expected FP32, FP64 or BYTES, got {tensor.datatype}"
        )
    single = tensor.datatype == "FP32"
    typed = tensor.contents.fp32_contents if single else tensor.contents.fp64_contents
    kind = np.dtype("<f4" if single else "<f8")
    if len(raw) % kind.itemsize:
        raise NetworkError(
            f"output {output!r}: expected {tensor.datatype}, got {len(raw)} bytes of raw contents"
        )
    numbers = np.frombuffer(raw, kind) if raw else np.array(typed)
    if not len(numbers) or (names and len(names) != len(numbers)):
        raise NetworkError(
            f"output {output!r}: expected {len(names) or 'some'} probabilities, got {len(numbers)}"
        )
    best = int(numbers.argmax())
    return names[best] if names else str(best)


def _read_classes(path: Path | None) -> tuple[str, ...]:
    if path is None:
        return ()
    try:
        return tuple(line.strip() for line in path.read_text().splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: expected names of classes, one a line: {error}") from error
