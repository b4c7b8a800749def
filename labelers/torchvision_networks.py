"""torchvision's classifiers and detectors by name, with pretrained weights and the transforms
that belong to them; on the GPU if there is one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from labelers.images import ImageBatch
from labelers.networks import (
    Classifier,
    Detections,
    Detector,
    Network,
    Probabilities,
    Task,
    digest_weights,
)
from utility_gate.errors import NetworkError
from utility_gate.statistics import softmax

try:
    import torch
    import torchvision
except ImportError as _missing:
    raise NetworkError(
        "torchvision's networks, and any detector, need torch: pip install '.[train]'"
    ) from _missing

_DEFAULT_WEIGHTS = {"classification": "IMAGENET1K_V1", "detection": "COCO_V1"}
_MODULES = {"classification": torchvision.models, "detection": torchvision.models.detection}


def open_by_name(reference: str, task: Task, temperature: float) -> Network:
    """The network "torchvision:NAME[:WEIGHTS]". The weights come from torch's hub cache, or are
    downloaded to it.

    Raises:
        NetworkError: if torchvision has no such model or weights, or they cannot be had.
    """
    name, _, weights = reference.removeprefix("torchvision:").partition(":")
    entry = _find_weights(name, weights or _DEFAULT_WEIGHTS[task], task)
    model = _load(name, entry)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    # Sums come out the same however many cores and workers there are; workers use the cores.
    torch.set_num_threads(1)
    torch.backends.cudnn.deterministic = True
    model.eval().to(device)
    full_name = f"torchvision:{name}:{entry.name}"
    file = Path(torch.hub.get_dir()) / "checkpoints" / Path(entry.url).name
    transform = entry.transforms()
    description: dict[str, Any] = {"transforms": str(transform), "device": _describe(device)}
    digest, categories = digest_weights(full_name, file), entry.meta["categories"]
    if task == "detection":
        prepare, detect = _detection(model, transform, device)
        return Detector(full_name, digest, description, prepare, detect, _number(categories))
    description["temperature"] = temperature
    prepare, classify = _classification(model, transform, device, temperature)
    return Classifier(full_name, digest, description, prepare, classify, len(categories))


def _describe(device: torch.device) -> str:
    """What computes: floats differ in their last digits between kinds of GPUs."""
    if device.type == "cpu":
        return "cpu"
    return (
        f"{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}, cuDNN "
        f"{torch.backends.cudnn.version()}"  # type: ignore[no-untyped-call]
    )


def coco_categories() -> dict[int, str]:
    """COCO's category ids (1 to 90, with gaps) and names, as torchvision's detectors use them."""
    weights = torchvision.models.detection.FasterRCNN_ResNet50_FPN_Weights.COCO_V1
    return _number(weights.meta["categories"])


def _number(categories: list[str]) -> dict[int, str]:
    return {n: c for n, c in enumerate(categories) if c not in ("__background__", "N/A")}


def _find_weights(name: str, weights: str, task: Task) -> Any:
    known = torchvision.models.list_models(module=_MODULES[task])
    if name not in known:
        raise NetworkError(f"torchvision has no network {name!r} for {task}; it has {known}")
    try:
        return torchvision.models.get_model_weights(name)[weights]
    except KeyError as error:
        has = [entry.name for entry in torchvision.models.get_model_weights(name)]
        raise NetworkError(
            f"torchvision:{name}: expected weights {' or '.join(has)}, got {weights!r}"
        ) from error


def _load(name: str, entry: Any) -> torch.nn.Module:
    try:
        model: torch.nn.Module = torchvision.models.get_model(name, weights=entry)
    except OSError as error:
        raise NetworkError(
            f"torchvision:{name}: the weights {entry.name} could not be downloaded ({error}); put "
            f"{Path(entry.url).name} into {torch.hub.get_dir()}/checkpoints"
        ) from error
    except Exception as error:  # a damaged file: pickle, zip and torch raise what they like
        raise NetworkError(
            f"torchvision:{name}: {Path(entry.url).name} in {torch.hub.get_dir()}/checkpoints does "
            f"not hold the weights {entry.name}: {error}"
        ) from error
    return model


def _tensors(images: ImageBatch, transform: Any) -> list[torch.Tensor]:
    return [transform(torch.from_numpy(np.array(p)).permute(2, 0, 1)) for p in images.pixels]


def _classification(
    model: torch.nn.Module, transform: Any, device: torch.device, temperature: float
) -> tuple[Callable[[ImageBatch], Any], Callable[[Any], Probabilities]]:
    def prepare(images: ImageBatch) -> torch.Tensor:
        return torch.stack(_tensors(images, transform))

    def forward(batch: torch.Tensor) -> Probabilities:
        with torch.inference_mode():
            return softmax(model(batch.to(device)).float().cpu().numpy(), temperature)

    return prepare, forward


def _detection(
    model: torch.nn.Module, transform: Any, device: torch.device
) -> tuple[Callable[[ImageBatch], Any], Callable[[Any], list[Detections]]]:
    def prepare(images: ImageBatch) -> list[torch.Tensor]:
        return _tensors(images, transform)

    def forward(batch: list[torch.Tensor]) -> list[Detections]:
        # One by one: torchvision pads a batch to its largest image, which would make what is
        # found in one image depend on the others.
        with torch.inference_mode():
            return [_to_detections(model([one.to(device)])[0], one) for one in batch]

    return prepare, forward


def _to_detections(found: dict[str, torch.Tensor], image: torch.Tensor) -> Detections:
    height, width = image.shape[1:]
    boxes = found["boxes"].float().cpu().numpy()
    return Detections(
        boxes=(boxes / np.array([width, height, width, height])).astype(np.float32),
        scores=found["scores"].float().cpu().numpy(),
        classes=found["labels"].cpu().numpy().astype(np.int64),
    )
