"""The images of a ModelInfer (Open Inference Protocol): the elements of one BYTES tensor."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import cast

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError

from server.routes.fields import Found
from server.routes.wire import BYTES, VARINT, Budget, parts, varint
from server.tensors import from_strings, to_strings
from serving.budget import check_elements
from utility_gate.errors import TensorError
from utility_gate.inference import open_inference_pb2 as pb

PREFIX = "inputs."
"""Of an image_field that names a tensor."""

_REQUEST = pb.ModelInferRequest.DESCRIPTOR.fields_by_name
_TENSOR = pb.ModelInferRequest.InferInputTensor.DESCRIPTOR.fields_by_name
_INPUTS, _RAW = _REQUEST["inputs"].number, _REQUEST["raw_input_contents"].number
_NAME, _DATATYPE = _TENSOR["name"].number, _TENSOR["datatype"].number
_SHAPE, _CONTENTS = _TENSOR["shape"].number, _TENSOR["contents"].number
_PARAMETERS, _KEY = _TENSOR["parameters"].number, 1
_SHARED_MEMORY = b"shared_memory"
"""How the parameters begin that say that a tensor lies in shared memory."""
_MOST_SIDES = 16
_STRINGS = pb.InferTensorContents.DESCRIPTOR.fields_by_name["bytes_contents"].number


@dataclass(slots=True)
class _Tensor:
    name: bytes = b""
    datatype: bytes = b""
    shape: list[int] = field(default_factory=list)
    contents: memoryview | None = None
    shared: bool = False


@dataclass(frozen=True, slots=True)
class TensorField:
    """The tensor `name`, BYTES, of any shape; its contents typed or raw. The other tensors are not
    looked at, whatever they hold."""

    name: str

    def find(self, request: bytes, limit: int) -> list[Found]:
        """See `ImageField.find`."""
        message, budget = memoryview(request), Budget()
        tensors: list[_Tensor] = []
        raw: list[memoryview] = []
        for part in parts(message, budget):
            content = message[part.content : part.end]
            if part.kind == BYTES and part.number == _INPUTS:
                tensors.append(self._read(content, budget))
            elif part.kind == BYTES and part.number == _RAW:
                raw.append(content)
        wanted = [(i, tensor) for i, tensor in enumerate(tensors) if tensor.name == self._encoded]
        if not wanted:
            return []
        self._require(len(wanted) == 1, "one tensor of this name", f"{len(wanted)}")
        index, tensor = wanted[0]
        self._require(tensor.datatype == b"BYTES", "datatype BYTES", repr(tensor.datatype[:50]))
        self._require(not tensor.shared, "its elements in the request", "shared memory")
        count = self._count(tensor.shape, limit)
        if raw:
            # Servers differ in whom a raw content belongs to where a tensor needs none, having
            # contents of its own or lying in shared memory.
            self._require(
                not any(each.shared or each.contents is not None for each in tensors),
                "raw_input_contents of all tensors",
                "some with contents of their own or in shared memory",
            )
            self._require(
                len(raw) == len(tensors),
                f"raw_input_contents of all {len(tensors)} tensors",
                f"{len(raw)}",
            )
            strings = to_strings(raw[index], count)
        else:
            strings = self._strings(tensor.contents or memoryview(b""), budget)
            self._require(
                len(strings) == count, f"{count} elements, as the shape says", f"{len(strings)}"
            )
        return [Found(position, string) for position, string in enumerate(strings)]

    def without(self, request: bytes, positions: Collection[int]) -> bytes:
        """See `ImageField.without`. Only for requests of one tensor of shape [n] or [n, 1]: nobody
        knows whether rows of others belong to the images."""
        check_elements(request, cast(Descriptor, pb.ModelInferRequest.DESCRIPTOR))
        try:
            message = pb.ModelInferRequest.FromString(request)
        except DecodeError as error:
            raise TensorError(f"expected a ModelInferRequest, got other bytes: {error}") from error
        inputs = len(message.inputs)
        self._require(inputs == 1, "no other tensor where images are filtered", f"{inputs - 1}")
        tensor = message.inputs[0]
        self._require(
            list(tensor.shape[1:]) in ([], [1]), "shape [n] or [n, 1]", f"{list(tensor.shape)}"
        )
        raw = bool(message.raw_input_contents)
        if raw:
            strings = to_strings(message.raw_input_contents[0], tensor.shape[0])
        else:
            strings = list(tensor.contents.bytes_contents)
        kept = [string for at, string in enumerate(strings) if at not in positions]
        tensor.shape[0] = len(kept)
        if raw:
            message.raw_input_contents[0] = from_strings(kept)
        else:
            del tensor.contents.bytes_contents[:]
            tensor.contents.bytes_contents.extend(kept)
        return message.SerializeToString()

    @property
    def _encoded(self) -> bytes:
        return self.name.encode()

    def _read(self, message: memoryview, budget: Budget) -> _Tensor:
        tensor, seen = _Tensor(), set()
        for part in parts(message, budget):
            content = message[part.content : part.end]
            if part.number == _SHAPE and part.kind in (BYTES, VARINT):
                tensor.shape.extend(self._numbers(content))
            if part.number == _PARAMETERS and part.kind == BYTES:
                tensor.shared = tensor.shared or self._is_shared(content, budget)
            if part.kind != BYTES or part.number not in (_NAME, _DATATYPE, _CONTENTS):
                continue
            self._require(part.number not in seen, "each field of a tensor once", "one twice")
            seen.add(part.number)
            if part.number == _NAME:
                tensor.name = bytes(content)
            elif part.number == _DATATYPE:
                tensor.datatype = bytes(content)
            else:
                tensor.contents = content  # not walked: others' may hold millions of numbers
        return tensor

    def _is_shared(self, parameter: memoryview, budget: Budget) -> bool:
        """Whether an entry of the tensor's parameters says that it lies in shared memory."""
        return any(
            part.number == _KEY
            and part.kind == BYTES
            and bytes(parameter[part.content : part.end]).startswith(_SHARED_MEMORY)
            for part in parts(parameter, budget)
        )

    def _strings(self, contents: memoryview, budget: Budget) -> list[bytes]:
        strings = []
        for part in parts(contents, budget):
            # Beside numbers of whatever kind, servers take these for the tensor.
            ours = part.number == _STRINGS and part.kind == BYTES
            self._require(ours, "bytes_contents alone", "other contents too")
            strings.append(bytes(contents[part.content : part.end]))
        return strings

    def _numbers(self, content: memoryview) -> list[int]:
        """One varint, or packed ones."""
        numbers: list[int] = []
        at = 0
        while at < len(content):
            value, at = varint(content, at)
            numbers.append(value)
            self._require(len(numbers) <= _MOST_SIDES, f"at most {_MOST_SIDES} dimensions", "more")
        return numbers

    def _count(self, shape: list[int], limit: int) -> int:
        count = 1
        for side in shape:
            count *= side
        fits = bool(shape) and all(side > 0 for side in shape) and count <= limit
        self._require(fits, f"a shape of 1 to {limit} elements", f"{shape[:8]}")
        return count

    def _require(self, ok: bool, expected: str, got: str) -> None:
        if not ok:
            raise TensorError(f"tensor {self.name!r}: expected {expected}, got {got}")
