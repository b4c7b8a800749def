"""Networks described in TOML: an ONNX file, its preprocessing, what its output means."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeVar

import onnxruntime as ort
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, ValidationError

from utility_gate.errors import NetworkError
from utility_gate.preprocess import Preprocess, Resampling


class _OnnxSpec(BaseModel):
    """What the entries of all ONNX networks have: where the weights lie and how pixels go in.

    `source` (where the weights come from) is for people.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    file: Path
    layout: Literal["nchw", "nhwc"]
    order: Literal["rgb", "bgr"] = "rgb"
    dtype: Literal["float32", "uint8"]
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    resampling: Resampling
    source: str | None = None

    def _preprocess(
        self, resize: int, crop: int, fit: Literal["crop", "stretch"] = "crop"
    ) -> Preprocess:
        return Preprocess(
            resize=resize,
            crop=crop,
            mean=self.mean,
            std=self.std,
            order=self.order,
            layout=self.layout,
            dtype=self.dtype,
            resampling=self.resampling,
            fit=fit,
        )


class OnnxClassifierSpec(_OnnxSpec):
    """One TOML table `[name]`: a classifier stored as ONNX.

    `fit` "stretch" takes all of the image, `resize` must then be `input`. `output` says whether the
    network ends in "logits" or in "probabilities"; `background` that its output 0 is a background
    class to be dropped. A network with several answers names the output and the part of it that is
    meant: `output_name`, and `classes` = (first, count). `top1` (measured accuracy) is for people.
    """

    task: Literal["classification"] = "classification"
    input: int = Field(gt=0)
    resize: int = Field(gt=0)
    layout: Literal["nchw", "nhwc"] = "nchw"
    dtype: Literal["float32", "uint8"] = "float32"
    resampling: Resampling = Resampling.BICUBIC
    fit: Literal["crop", "stretch"] = "crop"
    output: Literal["logits", "probabilities"] = "logits"
    output_name: str | None = None
    background: bool = False
    classes: tuple[NonNegativeInt, PositiveInt] | None = None
    top1: float | None = None

    @property
    def preprocess(self) -> Preprocess:
        """The preprocessing that this network was trained with."""
        return self._preprocess(self.resize, self.input, self.fit)


class DetectorOutputs(BaseModel):
    """Names of a detector's outputs: boxes (1, N, 4), classes and scores (1, N), and, if N is
    padded, `count` (1,), how many of them are real."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    boxes: str
    classes: str
    scores: str
    count: str | None = None


class OnnxDetectorSpec(_OnnxSpec):
    """One TOML table `[name]` with `task = "detection"`: a detector stored as ONNX.

    The image is resized to `input` x `input` without regard to its sides' ratio, or taken as it
    is where `input` is missing; then (x - mean) / std of 0-255 values. It looks at one image at a
    time. Boxes come in `box_order`, in parts of the image ("image") or in pixels of the input
    ("input"). `class_offset` is added to the classes that come out; `categories` names the
    classes that then stand for something: "coco" for the 90 ids of COCO, or a list of names, the
    first of them class 0. `ap` and `ap50` (measured) are for people.
    """

    task: Literal["detection"] = "detection"
    input: int | None = Field(default=None, gt=0, le=4096)
    batch: Literal[1] = 1
    layout: Literal["nchw", "nhwc"] = "nhwc"
    dtype: Literal["float32", "uint8"] = "uint8"
    resampling: Resampling = Resampling.BILINEAR
    outputs: DetectorOutputs
    box_order: Literal["yxyx", "xyxy"] = "yxyx"
    box_unit: Literal["image", "input"] = "image"
    class_offset: int = 0
    categories: Literal["coco"] | tuple[str, ...] = "coco"
    ap: float | None = None
    ap50: float | None = None

    @property
    def preprocess(self) -> Preprocess:
        """Order, layout, type and normalisation of its input; the geometry is `input`'s."""
        side = self.input or 1
        return self._preprocess(side, side)


Spec = TypeVar("Spec", OnnxClassifierSpec, OnnxDetectorSpec)


def load_specs(path: Path) -> dict[str, OnnxClassifierSpec]:
    """The classifiers of a networks file, by name; entries of other tasks are left out.

    Raises:
        NetworkError: if the file cannot be read or an entry is not valid.
    """
    return _load(path, "classification", OnnxClassifierSpec)


def load_detector_specs(path: Path) -> dict[str, OnnxDetectorSpec]:
    """The detectors of a networks file, by name; entries of other tasks are left out.

    Raises:
        NetworkError: if the file cannot be read or an entry is not valid.
    """
    return _load(path, "detection", OnnxDetectorSpec)


def _load(path: Path, task: str, kind: type[Spec]) -> dict[str, Spec]:
    try:
        tables = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise NetworkError(f"{path}: expected a TOML file of networks: {error}") from error
    specs: dict[str, Spec] = {}
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise NetworkError(f"{path}: expected a table [{name}], got {table!r}")
        if table.get("task", "classification") != task:
            continue
        try:
            spec = kind(name=name, **table)
            spec.preprocess  # noqa: B018 - refuse impossible preprocessing while reading
        except (ValidationError, ValueError, TypeError) as error:
            raise NetworkError(f"{path}: [{name}] is not a {task} entry: {error}") from error
        specs[name] = spec.model_copy(update={"file": path.parent / spec.file})
    return specs


def open_session(
    model: Path | bytes, threads: int = 1, providers: Sequence[str] = ("CPUExecutionProvider",)
) -> ort.InferenceSession:
    """An ONNX Runtime session with `threads` threads inside one run, by default on the CPU.

    Raises:
        NetworkError: if the model cannot be loaded.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Spinning threads would burn the other workers' cores between two requests.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    source = model if isinstance(model, bytes) else str(model)
    name = "the model" if isinstance(model, bytes) else model
    try:
        session = ort.InferenceSession(source, options, providers=list(providers))
    except Exception as error:  # ONNX Runtime raises a dozen unrelated types here
        raise NetworkError(f"{name}: ONNX Runtime cannot load it: {error}") from error
    # Without its device a provider gives way to the next one, and says so where nobody looks.
    serving = session.get_providers()[0]
    if serving != providers[0]:
        raise NetworkError(f"{name}: expected it to run by {providers[0]}, it runs by {serving}")
    return session
