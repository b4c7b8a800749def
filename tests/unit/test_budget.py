"""Messages of many tiny elements are refused before they are parsed."""

from __future__ import annotations

import contextlib
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.budget import MOST_ELEMENTS, check_elements
from utility_gate.errors import InputError
from utility_gate.inference import open_inference_pb2 as inference
from utility_gate.v1 import gate_pb2 as pb

INFER = inference.ModelInferRequest.DESCRIPTOR
MIB = 1024 * 1024


def infer(images: list[bytes]) -> bytes:
    """A request as clients send it."""
    contents = inference.InferTensorContents(bytes_contents=images)
    tensor = inference.ModelInferRequest.InferInputTensor(
        name="image", datatype="BYTES", shape=[len(images)], contents=contents
    )
    return inference.ModelInferRequest(model_name="", inputs=[tensor]).SerializeToString()


def test_honest_messages_pass() -> None:
    check_elements(infer([b"x" * MIB] * 16), INFER)
    check_elements(pb.AssessRequest(image=b"\x42\0" * MIB, task="t").SerializeToString(),
                   pb.AssessRequest.DESCRIPTOR)  # fmt: skip
    check_elements(b"", INFER)


@pytest.mark.parametrize(
    "bomb",
    [
        b"\x2a\0" * (8 * MIB),  # empty inputs
        b"\x3a\0" * (8 * MIB),  # empty raw contents
        b"\x40\0" * (8 * MIB),  # unknown numbers
        infer([b""] * 3_000),  # empty images, two levels down
        b"\x2a\x85\x80\x80\x01\x1a\x80\x80\x80\x01" + b"\0" * (2 * MIB),  # a packed shape
    ],
)
def test_bombs_are_refused_without_being_built(bomb: bytes) -> None:
    tracemalloc.start()
    with pytest.raises(InputError, match=f"at most {MOST_ELEMENTS} elements"):
        check_elements(bomb, INFER)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < MIB


def test_a_group_hides_nothing() -> None:
    with pytest.raises(InputError, match="groups"):
        check_elements(b"\xa3\x06\xa4\x06" + b"\x2a\0" * (8 * MIB), INFER)


@given(st.binary(max_size=200))
def test_any_bytes_pass_or_are_refused(data: bytes) -> None:
    with contextlib.suppress(InputError):
        check_elements(data, INFER)
