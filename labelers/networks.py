"""One network = weights + preprocessing + class count; torchvision by name, ONNX by TOML entry."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from utility_gate.errors import NetworkError
from utility_gate.images import Pixels
from utility_gate.networks import OnnxClassifierSpec, load_specs, open_session
from utility_gate.split import digest_bytes

Probabilities = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Classifier:
    """A ready network: `probabilities` takes decoded HWC uint8 RGB images of any sizes and
    returns softmax probabilities (N, classes), float64, rows summing to 1. Thread-safe.

    `digest` is the SHA-256 of the weights file; `description` says how it is used (the
    preprocessing, what its output means), for the tables' provenance.
    """

    name: str
    digest: str
    classes: int
    probabilities: Callable[[list[Pixels]], Probabilities]
    description: dict[str, Any]


def softmax(logits: npt.NDArray[Any]) -> Probabilities:
    """Row-wise softmax in float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    exponentials = np.exp(shifted)
    result: Probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
    return result


def open_network(reference: str, specs_file: Path | None) -> Classifier:
    """A network from its name in `specs_file`, or "torchvision:NAME[:WEIGHTS]".

    Raises:
        NetworkError: if there is no such network or it does not run.
    """
    if reference.startswith("torchvision:"):
        return open_torchvision(*reference.split(":")[1:])
    if specs_file is None:
        raise NetworkError(
            f"expected a file of networks for {reference!r} (--networks FILE.toml), got none"
        )
    specs = load_specs(specs_file)
    if reference not in specs:
        raise NetworkError(
            f"{specs_file}: expected one of {', '.join(specs) or 'no networks'}, got {reference!r}"
        )
    return open_onnx(specs[reference])


def open_onnx(spec: OnnxClassifierSpec) -> Classifier:
    """A classifier stored as ONNX, run by ONNX Runtime on the CPU.

    Raises:
        NetworkError: if the file is missing or its output is not (N, classes).
    """
    if not spec.file.exists():
        raise NetworkError(f"[{spec.name}]: expected the weights file {spec.file}, found none")
    session = open_session(spec.file)
    input_name = session.get_inputs()[0].name
    output_name = session.get_outputs()[0].name

    def probabilities(images: list[Pixels]) -> Probabilities:
        (raw,) = session.run([output_name], {input_name: spec.preprocess(images)})
        scores = np.asarray(raw).reshape(len(images), -1)
        if spec.background:
            scores = scores[:, 1:]
        if spec.output == "logits":
            return softmax(scores)
        total = scores.astype(np.float64)
        result: Probabilities = total / total.sum(axis=1, keepdims=True)
        return result

    blank = np.zeros((spec.input, spec.input, 3), np.uint8)
    try:
        classes = probabilities([blank]).shape[1]
    except Exception as error:  # ONNX Runtime raises a dozen unrelated types here
        raise NetworkError(
            f"[{spec.name}]: does not run on its own preprocessing: {error}"
        ) from error
    description = spec.model_dump(mode="json", exclude={"name", "file"})
    digest = digest_bytes(spec.file.read_bytes())
    return Classifier(spec.name, digest, classes, probabilities, description)


def open_torchvision(name: str, weights: str = "IMAGENET1K_V1") -> Classifier:
    """A torchvision classifier with pretrained weights and their own transforms, on the GPU if
    there is one.

    The weights come from torch's hub cache, or are downloaded to it.

    Raises:
        NetworkError: if torchvision is missing, or has no such model or weights, or they
            cannot be had.
    """
    try:
        import torch
        import torchvision
    except ImportError as error:
        raise NetworkError(
            f"torchvision:{name} needs torch: pip install 'utility-gate[train]'"
        ) from error
    try:
        entry = torchvision.models.get_model_weights(name)[weights]
        model = torchvision.models.get_model(name, weights=entry).eval()
    except (ValueError, KeyError) as error:
        raise NetworkError(
            f"torchvision has no classifier {name!r} with weights {weights!r}: {error}"
        ) from error
    except OSError as error:
        raise NetworkError(
            f"torchvision:{name}: the weights {weights} could not be downloaded ({error}); put "
            f"the file into {torch.hub.get_dir()}/checkpoints"
        ) from error
    transform = entry.transforms()
    file = Path(torch.hub.get_dir()) / "checkpoints" / Path(entry.url).name
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device)
    # Several labelling threads share the model: on a GPU they take turns.
    turn = threading.Lock() if device.type == "cuda" else contextlib.nullcontext()

    def probabilities(images: list[Pixels]) -> Probabilities:
        batch = torch.stack(
            [transform(torch.from_numpy(np.array(i)).permute(2, 0, 1)) for i in images]
        )
        with turn, torch.inference_mode():
            return softmax(model(batch.to(device)).float().cpu().numpy())

    return Classifier(
        name=f"torchvision:{name}:{entry.name}",
        digest=digest_bytes(file.read_bytes()),
        classes=len(entry.meta["categories"]),
        probabilities=probabilities,
        description={"transforms": str(transform), "device": device.type},
    )
