"""One network = weights + preprocessing + what its outputs stand for; from torchvision by name or
from an ONNX file by TOML entry."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from labelers.images import ImageBatch
from utility_gate.errors import NetworkError
from utility_gate.files import digest_file, digest_json

Task = Literal["classification", "detection"]
Probabilities = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Detections:
    """What a detector found in one image, N of them: `boxes` (N, 4) float32 xyxy in parts of the
    image (0 to 1 from its left and top), `scores` (N,) float32 in [0, 1], `classes` (N,) int64."""

    boxes: Floats
    scores: Floats
    classes: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Classifier:
    """`forward(prepare(images))` gives softmax probabilities (N, classes), float64, rows summing
    to 1.

    `digest` is the SHA-256 of the weights file; `description` says how it is used (the
    preprocessing, what its output means), for the tables' provenance.
    """

    name: str
    digest: str
    description: dict[str, Any]
    prepare: Callable[[ImageBatch], Any]
    forward: Callable[[Any], Probabilities]
    classes: int


@dataclass(frozen=True, slots=True)
class Detector:
    """`forward(prepare(images))` gives the detections in each of N images.

    `categories` maps the classes that it can find to their names.
    """

    name: str
    digest: str
    description: dict[str, Any]
    prepare: Callable[[ImageBatch], Any]
    forward: Callable[[Any], list[Detections]]
    categories: dict[int, str]


Network = Classifier | Detector


@dataclass(frozen=True, slots=True)
class NetworkFacts:
    """What is known of an opened network without having it: `classes` of a classifier, or
    `categories` of a detector."""

    name: str
    digest: str
    description: dict[str, Any]
    classes: int | None = None
    categories: dict[int, str] | None = None


def facts_of(network: Network) -> NetworkFacts:
    """What is to be known of a network by those who do not hold it."""
    if isinstance(network, Classifier):
        own: dict[str, Any] = {"classes": network.classes}
    else:
        own = {"categories": network.categories}
    return NetworkFacts(network.name, network.digest, network.description, **own)


def fingerprint(networks: Sequence[NetworkFacts]) -> str:
    """SHA-256 over names, weights and use: the same where the same is computed."""
    known = [[network.name, network.digest, network.description] for network in networks]
    return digest_json(known)


def open_network(
    reference: str, specs_file: Path | None, task: Task = "classification", temperature: float = 1.0
) -> Network:
    """A network from its name in `specs_file`, or "torchvision:NAME[:WEIGHTS]".

    A classifier's logits are divided by `temperature` before the softmax.

    Raises:
        NetworkError: if there is no such network, it is for another task or does not run.
    """
    if reference.startswith("torchvision:"):
        # torch takes seconds to import; who labels with ONNX networks does not need it.
        from labelers import torchvision_networks

        return torchvision_networks.open_by_name(reference, task, temperature)
    if specs_file is None:
        raise NetworkError(
            f"expected a file of networks for {reference!r} (--networks FILE.toml), got none"
        )
    from labelers import onnx_networks

    return onnx_networks.open_by_name(reference, specs_file, task, temperature)


def digest_weights(name: str, file: Path) -> str:
    """SHA-256 of a weights file.

    Raises:
        NetworkError: if it is not there.
    """
    try:
        return digest_file(file)
    except OSError as error:
        raise NetworkError(
            f"[{name}]: expected the weights file {file}, found none: {error}"
        ) from error
