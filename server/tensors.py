"""Tensors of the Open Inference Protocol to images, and verdicts to tensors; decides nothing."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Iterable, Sequence

from utility_gate.errors import InputError, TensorError
from utility_gate.inference import open_inference_pb2 as pb
from utility_gate.types import Verdict

IMAGE = "image"
"""The one input: encoded images as BYTES."""

_NUMBERS: dict[str, Callable[[Verdict], float]] = {
    "utility": lambda verdict: math.nan if verdict.utility is None else verdict.utility,
}
_TEXTS: dict[str, Callable[[Verdict], str]] = {
    "decision": lambda verdict: str(verdict.decision),
    "judgement": lambda verdict: str(verdict.judgement or ""),
    "reasons": lambda verdict: _reasons(verdict),
    "advice": lambda verdict: _advice(verdict),
    "predictor_version": lambda verdict: verdict.predictor.version if verdict.predictor else "",
}
OUTPUTS = dict.fromkeys(_NUMBERS, "FP32") | dict.fromkeys(_TEXTS, "BYTES")
"""Each output's datatype; all are of shape [n]."""

_LENGTH = 4
"""Bytes of the length before each element of raw BYTES."""


def is_raw(request: pb.ModelInferRequest) -> bool:
    """Whether tensors come, and are to be answered, as raw contents."""
    return bool(request.raw_input_contents)


def to_images(request: pb.ModelInferRequest, limit: int) -> list[bytes]:
    """The encoded images of a request, at least one and at most `limit`.

    Raises:
        TensorError: if there is anything but one well-formed tensor of images.
    """
    inputs = len(request.inputs)
    _require(inputs == 1, f"one input, {IMAGE!r}", f"{inputs} of them")
    tensor = request.inputs[0]
    _require(tensor.name == IMAGE, f"the input {IMAGE!r}", _quote(tensor.name))
    _require(tensor.datatype == "BYTES", "datatype BYTES", _quote(tensor.datatype))
    count = _count(tensor.shape, limit)
    fields = [field.name for field, _ in tensor.contents.ListFields()]
    if is_raw(request):
        raw = request.raw_input_contents
        _require(not fields, "contents or raw_input_contents", "both")
        _require(len(raw) == 1, "raw_input_contents for one input", f"for {len(raw)}")
        return to_strings(raw[0], count)
    _require(fields in ([], ["bytes_contents"]), "bytes_contents alone", ", ".join(fields))
    images = tensor.contents.bytes_contents
    _require(len(images) == count, f"{count} images, as the shape says", f"{len(images)}")
    return list(images)


def to_names(request: pb.ModelInferRequest) -> list[str]:
    """The outputs wanted, in the request's order; all of them if it names none.

    Raises:
        InputError: if an unknown one is named, or one twice.
    """
    names = list(dict.fromkeys(output.name for output in request.outputs))
    unknown = [name for name in names if name not in OUTPUTS]
    if unknown or len(names) < len(request.outputs):
        got = _quote(unknown[0]) if unknown else "one twice"
        raise InputError(f"expected outputs of {', '.join(OUTPUTS)}, each once, got {got}")
    return names or list(OUTPUTS)


def from_verdicts(
    verdicts: Sequence[Verdict], names: Iterable[str], *, raw: bool
) -> pb.ModelInferResponse:
    """Verdicts as the outputs `names`; an image that was not judged has utility NaN, and "" for
    what it has not. FP32 rounds: decisions were made before."""
    response = pb.ModelInferResponse()
    for name in names:
        tensor = response.outputs.add(name=name, datatype=OUTPUTS[name], shape=[len(verdicts)])
        if name in _NUMBERS:
            numbers = [_NUMBERS[name](verdict) for verdict in verdicts]
            if raw:
                response.raw_output_contents.append(struct.pack(f"<{len(numbers)}f", *numbers))
            else:
                tensor.contents.fp32_contents.extend(numbers)
        else:
            texts = [_TEXTS[name](verdict).encode() for verdict in verdicts]
            if raw:
                response.raw_output_contents.append(from_strings(texts))
            else:
                tensor.contents.bytes_contents.extend(texts)
    return response


def from_strings(strings: Iterable[bytes]) -> bytes:
    """Elements of a BYTES tensor as raw contents: each behind its length, 4 bytes little-endian."""
    return b"".join(len(string).to_bytes(_LENGTH, "little") + string for string in strings)


def to_strings(raw: bytes | memoryview, count: int) -> list[bytes]:
    """Raw contents as the `count` elements of a BYTES tensor.

    Raises:
        TensorError: if they are no such elements, whole and with nothing behind them.
    """
    strings = []
    at = 0
    for index in range(count):
        start = at + _LENGTH
        _require(start <= len(raw), f"{count} elements, as the shape says", f"{index}")
        at = start + int.from_bytes(raw[at:start], "little")
        _require(
            at <= len(raw),
            f"{at - start} bytes for element {index}, as its length says",
            f"{len(raw) - start}",
        )
        strings.append(bytes(raw[start:at]))
    _require(at == len(raw), f"{count} elements, as the shape says", f"{len(raw) - at} bytes more")
    return strings


def _count(shape: Sequence[int], limit: int) -> int:
    fits = 1 <= len(shape) <= 2 and 1 <= shape[0] <= limit and list(shape[1:]) in ([], [1])
    _require(
        fits,
        f"shape [n] or [n, 1] for 1 to {limit} images",
        f"{list(shape)}" if len(shape) < 5 else f"{len(shape)} dimensions",
    )
    return shape[0]


def _reasons(verdict: Verdict) -> str:
    """A JSON array, for humans and `json.loads`."""
    return json.dumps(
        [
            {
                "kind": str(reason.kind),
                "value": reason.value,
                "threshold": reason.threshold,
                "message": reason.message,
            }
            for reason in verdict.reasons
        ]
    )


def _advice(verdict: Verdict) -> str:
    """The same of what is advised; `value` may be null."""
    return json.dumps(
        [{"kind": a.kind, "value": a.value, "message": a.message} for a in verdict.advice]
    )


def _require(ok: bool, expected: str, got: str) -> None:
    if not ok:
        raise TensorError(f"expected {expected}, got {got}")


def _quote(text: str) -> str:
    return repr(text[:100])
