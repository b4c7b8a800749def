"""Networks stored as ONNX, run by ONNX Runtime: on a GPU if its GPU package is installed."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from labelers.images import ImageBatch
from labelers.networks import (
    Classifier,
    Detections,
    Detector,
    Floats,
    Network,
    Probabilities,
    Task,
    digest_weights,
)
from utility_gate.errors import NetworkError
from utility_gate.networks import (
    OnnxClassifierSpec,
    OnnxDetectorSpec,
    load_detector_specs,
    load_specs,
    open_session,
)
from utility_gate.statistics import softmax

_ROUNDING = 0.01
"""How far quantised networks' probabilities may be from a distribution."""

Spec = TypeVar("Spec", OnnxClassifierSpec, OnnxDetectorSpec)


def open_by_name(name: str, specs_file: Path, task: Task, temperature: float) -> Network:
    """The network that stands in `specs_file` under this name.

    Raises:
        NetworkError: if there is none for this task or it does not run.
    """
    if task == "detection":
        return open_detector(_find(load_detector_specs(specs_file), name, task, specs_file))
    return open_classifier(_find(load_specs(specs_file), name, task, specs_file), temperature)


def open_classifier(spec: OnnxClassifierSpec, temperature: float = 1.0) -> Classifier:
    """A classifier with an output (N, classes), or with one that holds it.

    Raises:
        NetworkError: if the weights are missing or do not run on the entry's preprocessing.
    """
    digest = digest_weights(spec.name, spec.file)
    session = _open(spec.file)
    input_name = session.get_inputs()[0].name
    has = [output.name for output in session.get_outputs()]
    output_name = spec.output_name or has[0]
    if output_name not in has:
        raise NetworkError(
            f"[{spec.name}]: expected the output {output_name}, it has {', '.join(has)}"
        )

    def prepare(images: ImageBatch) -> npt.NDArray[Any]:
        return spec.preprocess.normalize(images.crops(spec.preprocess))

    # Networks exported for one image at a time say so in their input's shape.
    step = session.get_inputs()[0].shape[0]
    if isinstance(step, int) and step != 1:
        raise NetworkError(f"[{spec.name}]: expected a free batch size or 1, got {step}")

    def run(batch: npt.NDArray[Any]) -> npt.NDArray[Any]:
        (raw,) = session.run([output_name], {input_name: batch})
        return np.asarray(raw).reshape(len(batch), -1)

    def forward(batch: npt.NDArray[Any]) -> Probabilities:
        scores = np.concatenate([run(one[None]) for one in batch]) if step == 1 else run(batch)
        scores = _part(scores, spec)
        if spec.output == "probabilities":
            _check_probabilities(scores, spec.name)
        scores = scores[:, 1 if spec.background else 0 :]
        return _to_probabilities(scores, spec.output, temperature)

    blank = ImageBatch([np.zeros((spec.input, spec.input, 3), np.uint8)])
    classes = _try(spec.name, lambda: forward(prepare(blank))).shape[1]
    return Classifier(spec.name, digest, _describe(spec, session), prepare, forward, classes)


def open_detector(spec: OnnxDetectorSpec) -> Detector:
    """A detector that ends in its own non-maximum suppression and looks at one image at a time.

    Raises:
        NetworkError: if the weights are missing or do not run on the entry's preprocessing.
    """
    digest = digest_weights(spec.name, spec.file)
    session = _open(spec.file)
    input_name = session.get_inputs()[0].name
    names = [name for name in spec.outputs.model_dump().values() if name is not None]
    missing = set(names) - {output.name for output in session.get_outputs()}
    if missing:
        has = ", ".join(output.name for output in session.get_outputs())
        raise NetworkError(f"[{spec.name}]: expected the outputs {sorted(missing)}, it has {has}")

    def prepare(images: ImageBatch) -> list[npt.NDArray[Any]]:
        if spec.input is None:
            return [spec.preprocess.normalize(pixels[None]) for pixels in images.pixels]
        squares = images.squares(spec.input, spec.resampling)
        return [spec.preprocess.normalize(square[None]) for square in squares]

    def forward(inputs: list[npt.NDArray[Any]]) -> list[Detections]:
        return [_to_detections(spec, session.run(names, {input_name: one}), one) for one in inputs]

    side = spec.input or 64
    blank = ImageBatch([np.zeros((side, side, 3), np.uint8)])
    _try(spec.name, lambda: forward(prepare(blank)))
    return Detector(
        spec.name, digest, _describe(spec, session), prepare, forward, _categories(spec)
    )


def _find(specs: dict[str, Spec], name: str, task: Task, file: Path) -> Spec:
    if name not in specs:
        known = ", ".join(specs) or "no networks"
        raise NetworkError(f"{file}: expected one of {known} for {task}, got {name!r}")
    return specs[name]


def _open(file: Path) -> ort.InferenceSession:
    if "CUDAExecutionProvider" in ort.get_available_providers():
        # It may be built in where there is no GPU.
        with contextlib.suppress(NetworkError):
            return open_session(file, providers=("CUDAExecutionProvider", "CPUExecutionProvider"))
    return open_session(file)


def _try(name: str, run: Any) -> Any:
    try:
        return run()
    except NetworkError:
        raise
    except Exception as error:  # ONNX Runtime raises a dozen unrelated types here
        raise NetworkError(f"[{name}]: does not run on its own preprocessing: {error}") from error


def _describe(
    spec: OnnxClassifierSpec | OnnxDetectorSpec, session: ort.InferenceSession
) -> dict[str, Any]:
    entry = spec.model_dump(mode="json", exclude={"name", "file"})
    return {**entry, "providers": session.get_providers()}


def _part(scores: npt.NDArray[Any], spec: OnnxClassifierSpec) -> npt.NDArray[Any]:
    if spec.classes is None:
        return scores
    first, count = spec.classes
    if first + count > scores.shape[1]:
        raise NetworkError(
            f"[{spec.name}]: expected at least {first + count} values, got {scores.shape[1]}; "
            "mend classes = [first, count]"
        )
    return scores[:, first : first + count]


def _check_probabilities(scores: npt.NDArray[Any], name: str) -> None:
    sums = scores.sum(axis=1, dtype=np.float64)
    if not ((scores >= -_ROUNDING).all() and (np.abs(sums - 1) <= _ROUNDING).all()):
        raise NetworkError(
            f"[{name}]: expected probabilities that sum to 1, got values from {scores.min():.3g} "
            f"to {scores.max():.3g}, sums from {sums.min():.3g} to {sums.max():.3g}; is the "
            'output "logits"?'
        )


def _to_probabilities(scores: npt.NDArray[Any], output: str, temperature: float) -> Probabilities:
    if output == "logits":
        return softmax(scores, temperature)
    given = scores.astype(np.float64)
    if temperature != 1.0:
        return softmax(np.log(np.maximum(given, np.finfo(np.float64).tiny)), temperature)
    result: Probabilities = given / given.sum(axis=1, keepdims=True)
    return result


def _to_detections(
    spec: OnnxDetectorSpec, raw: list[npt.NDArray[Any]], image: npt.NDArray[Any]
) -> Detections:
    boxes, classes, scores, *count = (np.asarray(output)[0] for output in raw)
    found = int(count[0]) if count else len(scores)
    boxes = boxes[:found].astype(np.float32)
    if spec.box_order == "yxyx":
        boxes = boxes[:, [1, 0, 3, 2]]
    if spec.box_unit == "input":
        height, width = image.shape[1:3] if spec.layout == "nhwc" else image.shape[2:4]
        boxes = boxes / np.array([width, height, width, height], np.float32)
    numbers = np.rint(classes[:found]).astype(np.int64) + spec.class_offset
    surely: Floats = scores[:found].astype(np.float32)
    return Detections(boxes, surely, numbers)


def _categories(spec: OnnxDetectorSpec) -> dict[int, str]:
    if spec.categories == "coco":
        from labelers.torchvision_networks import coco_categories

        return coco_categories()
    return dict(enumerate(spec.categories))
