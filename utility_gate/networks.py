"""Networks described in TOML: an ONNX file, its preprocessing, what its output means."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Literal

import onnxruntime as ort
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from utility_gate.errors import NetworkError
from utility_gate.preprocess import Preprocess, Resampling


class OnnxClassifierSpec(BaseModel):
    """One TOML table `[name]`: a classifier stored as ONNX.

    `output` says whether the network ends in "logits" or in "probabilities"; `background`
    that its output 0 is a background class to be dropped. `top1` (measured accuracy) and `source`
    (where the weights come from) are for people.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    file: Path
    task: Literal["classification"] = "classification"
    input: int = Field(gt=0)
    resize: int = Field(gt=0)
    layout: Literal["nchw", "nhwc"] = "nchw"
    order: Literal["rgb", "bgr"] = "rgb"
    dtype: Literal["float32", "uint8"] = "float32"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    resampling: Resampling = Resampling.BICUBIC
    output: Literal["logits", "probabilities"] = "logits"
    background: bool = False
    top1: float | None = None
    source: str | None = None

    @property
    def preprocess(self) -> Preprocess:
        """The preprocessing that this network was trained with."""
        return Preprocess(
            resize=self.resize,
            crop=self.input,
            mean=self.mean,
            std=self.std,
            order=self.order,
            layout=self.layout,
            dtype=self.dtype,
            resampling=self.resampling,
        )


def load_specs(path: Path) -> dict[str, OnnxClassifierSpec]:
    """The classifiers of a networks file, by name; entries of other tasks are left out.

    Raises:
        NetworkError: if the file cannot be read or an entry is not valid.
    """
    try:
        tables = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise NetworkError(f"{path}: expected a TOML file of networks: {error}") from error
    specs: dict[str, OnnxClassifierSpec] = {}
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise NetworkError(f"{path}: expected a table [{name}], got {table!r}")
        if table.get("task", "classification") != "classification":
            continue
        try:
            spec = OnnxClassifierSpec(name=name, **table)
            spec.preprocess  # noqa: B018 - refuse impossible preprocessing while reading
        except (ValidationError, ValueError, TypeError) as error:
            raise NetworkError(f"{path}: [{name}] is not a classifier entry: {error}") from error
        specs[name] = spec.model_copy(update={"file": path.parent / spec.file})
    return specs


def open_session(model: Path | bytes, threads: int = 1) -> ort.InferenceSession:
    """An ONNX Runtime CPU session with `threads` threads inside one run.

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
    try:
        return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime raises a dozen unrelated types here
        name = "the model" if isinstance(model, bytes) else model
        raise NetworkError(f"{name}: ONNX Runtime cannot load it: {error}") from error
