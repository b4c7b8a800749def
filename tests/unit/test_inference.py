"""Tensors of the Open Inference Protocol: images in, verdicts out, nothing breaks on the way."""

from __future__ import annotations

import contextlib
import json
import math
import struct
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.tensors import (
    OUTPUTS,
    from_strings,
    from_verdicts,
    is_raw,
    to_images,
    to_names,
    to_strings,
)
from utility_gate.errors import InputError, TensorError
from utility_gate.inference import open_inference_pb2 as pb
from utility_gate.types import (
    Advice,
    AdviceKind,
    Decision,
    ImageInfo,
    Mode,
    PredictorInfo,
    Reason,
    ReasonKind,
    Thresholds,
    Verdict,
)

LIMIT = 4
Contents = pb.InferTensorContents


def request(
    *images: bytes, raw: bytes | None = None, shape: list[int] | None = None, **changes: object
) -> pb.ModelInferRequest:
    tensor = {"name": "image", "datatype": "BYTES", "shape": shape or [len(images)]} | changes
    if images:
        tensor.setdefault("contents", Contents(bytes_contents=images))
    contents = [] if raw is None else [raw]
    return pb.ModelInferRequest(
        inputs=[pb.ModelInferRequest.InferInputTensor(**tensor)], raw_input_contents=contents
    )


@given(st.lists(st.binary(max_size=300)))
def test_strings_survive_the_way_to_raw_contents_and_back(strings: list[bytes]) -> None:
    assert to_strings(from_strings(strings), len(strings)) == strings


@given(st.lists(st.binary(max_size=50), min_size=1, max_size=LIMIT), st.booleans())
def test_images_are_found_in_either_form_of_contents(images: list[bytes], column: bool) -> None:
    shape = [len(images), 1] if column else [len(images)]
    assert to_images(request(*images, shape=shape), LIMIT) == images
    assert to_images(request(raw=from_strings(images), shape=shape), LIMIT) == images


@given(st.binary(max_size=200), st.integers(0, 20))
def test_any_raw_contents_are_strings_or_a_tensor_error(raw: bytes, count: int) -> None:
    with contextlib.suppress(TensorError):
        assert from_strings(to_strings(raw, count)) == raw


tensors = st.builds(
    pb.ModelInferRequest.InferInputTensor,
    name=st.sampled_from(["image", "image", "pixels"]),
    datatype=st.sampled_from(["BYTES", "BYTES", "FP32"]),
    shape=st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(0, 3), max_size=3),
    contents=st.builds(
        Contents,
        bytes_contents=st.lists(st.binary(max_size=5), max_size=5),
        fp32_contents=st.just([]) | st.lists(st.floats(width=32), max_size=2),
    ),
)
requests = st.builds(
    pb.ModelInferRequest,
    inputs=st.lists(tensors, max_size=2),
    outputs=st.lists(
        st.builds(
            pb.ModelInferRequest.InferRequestedOutputTensor,
            name=st.sampled_from([*OUTPUTS, "mood"]),
        ),
        max_size=3,
    ),
    raw_input_contents=st.lists(st.binary(max_size=30), max_size=2),
)


@given(requests)
def test_any_request_holds_images_or_gets_an_input_error(message: pb.ModelInferRequest) -> None:
    try:
        images, names = to_images(message, LIMIT), to_names(message)
    except InputError:
        return
    assert 1 <= len(images) <= LIMIT
    assert set(names) <= set(OUTPUTS)
    assert is_raw(message) == (len(message.raw_input_contents) == 1)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (pb.ModelInferRequest(), "one input"),
        (request(b"a", name="pixels"), "'image', got 'pixels'"),
        (request(b"a", datatype="UINT8"), "BYTES, got 'UINT8'"),
        (request(b"a", shape=[1, 2]), r"got \[1, 2\]"),
        (request(b"a", shape=[-1]), r"got \[-1\]"),
        (request(b"a", shape=[LIMIT + 1]), "1 to 4 images"),
        (request(b"a", shape=[1] * 1000), "1000 dimensions"),
        (request(b"a", b"b", shape=[1]), "1 images, as the shape says, got 2"),
        (request(b"a", raw=from_strings([b"a"])), "got both"),
        (request(shape=[1]), "1 images, as the shape says, got 0"),
        (request(shape=[1], contents=Contents(int_contents=[1])), "int_contents"),
        (request(raw=b"", shape=[1]), "1 elements, as the shape says, got 0"),
        (request(raw=b"\x05\x00\x00", shape=[1]), "1 elements"),
        (request(raw=b"\x05\x00\x00\x00ab", shape=[1]), "5 bytes for element 0"),
        (request(raw=from_strings([b"a", b"b"]), shape=[1]), "5 bytes more"),
    ],
)
def test_a_malformed_tensor_is_named(message: pb.ModelInferRequest, expected: str) -> None:
    with pytest.raises(TensorError, match=expected):
        to_images(message, LIMIT)


def test_a_forged_length_allocates_nothing() -> None:
    tracemalloc.start()
    try:
        with pytest.raises(TensorError):
            to_images(request(raw=b"\xff\xff\xff\xff" + b"x" * 100, shape=[1]), LIMIT)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def test_an_output_named_twice_is_refused() -> None:
    twice = [pb.ModelInferRequest.InferRequestedOutputTensor(name="utility")] * 2
    with pytest.raises(InputError, match="one twice"):
        to_names(pb.ModelInferRequest(outputs=twice))


JUDGED = Verdict(
    task="general",
    utility=0.25,
    decision=Decision.REVIEW,
    thresholds=Thresholds(0.6, 0.2),
    reasons=(Reason(ReasonKind.LOW_UTILITY, 0.25, 0.6, 'low "utility"'),),
    predictor=PredictorInfo("brightness", "7", "0" * 64),
    image=ImageInfo("PNG", 4, 4),
    advice=(Advice(AdviceKind.LARGER, 224.0, "send it larger"),),
)
PASSED = Verdict(
    task="general",
    utility=None,
    decision=Decision.USEFUL,
    thresholds=None,
    reasons=(),
    predictor=None,
    image=None,
    mode=Mode.FALLBACK,
)


def test_verdicts_are_the_same_tensors_in_either_form() -> None:
    typed = from_verdicts([JUDGED, PASSED], OUTPUTS, raw=False)
    raw = from_verdicts([JUDGED, PASSED], OUTPUTS, raw=True)
    assert not typed.raw_output_contents
    outputs = zip(typed.outputs, raw.outputs, raw.raw_output_contents, strict=True)
    found = {}
    for tensor, empty, contents in outputs:
        assert tensor.shape == [2]
        assert not empty.HasField("contents")
        if tensor.datatype == "FP32":
            assert struct.pack("<2f", *tensor.contents.fp32_contents) == contents
            found[tensor.name] = list(tensor.contents.fp32_contents)
        else:
            assert to_strings(contents, 2) == tensor.contents.bytes_contents
            found[tensor.name] = [value.decode() for value in tensor.contents.bytes_contents]
    assert found["utility"][0] == 0.25
    assert math.isnan(found["utility"][1])
    assert found["decision"] == ["REVIEW", "USEFUL"]
    assert found["judgement"] == ["REVIEW", ""]
    assert found["predictor_version"] == ["7", ""]
    assert json.loads(found["reasons"][0])[0]["message"] == 'low "utility"'
    assert found["reasons"][1] == "[]"
    assert json.loads(found["advice"][0]) == [
        {"kind": "LARGER", "value": 224.0, "message": "send it larger"}
    ]
    assert found["advice"][1] == "[]"
