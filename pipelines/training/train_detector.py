"""From images with boxes to a detector on disk; read it from top to bottom."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from pipelines.boxed import BoxedImage, by_original, read_boxed
from pipelines.card import DetectorCard, Vector
from pipelines.detector import Detector, to_numbers
from pipelines.evaluate_boxes import RESULTS, evaluate_boxes
from pipelines.examples import SIDES
from pipelines.training.detector import STRIDES, BoxNet
from pipelines.training.detector_config import DetectorRecipe, load_detector_config
from pipelines.training.detector_fit import fit_detector
from pipelines.training.export import trace
from pipelines.training.runs import package_versions, seed_run
from pipelines.training.stored import once
from utility_gate.checkpoint import Weights, save_card
from utility_gate.errors import CheckpointError, ConfigError
from utility_gate.files import digest_file, digest_json
from utility_gate.images import encode_jpeg
from utility_gate.networks import open_session
from utility_gate.training.export import store_half, synthetic_photo
from utility_gate.training.module import IMAGENET_MEAN, IMAGENET_STD

_WEIGHTS = "model.onnx"
_TOLERANCE = 0.1
"""Largest difference of an output that storing weights in half precision may make."""
_OUTPUTS = ["logits", "distances", "centerness"]


def train_detector(
    recipe: DetectorRecipe,
    images: Sequence[BoxedImage],
    out: Path,
    name: str,
    *,
    release: str = "1",
) -> str:
    """Fit, export, and measure on one copy of each held-out original, as it serves; returns the
    tables as Markdown. `name` is the detector's in its card.

    A fit that `out` holds already is not repeated.

    Raises:
        ConfigError: if a side is empty or training diverged.
        CheckpointError: if initial weights cannot be had, `out` holds another network, or the
            export computes something else than torch.
    """
    # 1. The network, fitted.
    sides = {side: by_original(images, side) for side in SIDES}
    if not all(sides.values()):
        counts = {side: len(groups) for side, groups in sides.items()}
        raise ConfigError(f"expected originals on every side, got {counts}")
    seed_run(recipe)
    net = BoxNet(len(recipe.classes))
    net.initialize(recipe.init)
    out.mkdir(parents=True, exist_ok=True)

    def fit() -> float:
        fit_detector(net, recipe, sides["train"], sides["validation"], out)
        return recipe.learning_rate

    once(net, _digest(recipe, images), out, fit)
    # 2. As a file that serves.
    detector = Detector(_card(recipe, export(net, recipe.side, out), name, release), _read(out))
    # 3. How good it is, on images that nobody has looked at, at every input size.
    metrics, text = evaluate_boxes(detector, sides["test"], recipe.sides)
    card = detector.card.model_copy(
        update={
            "training": {
                "recipe": recipe.model_dump(exclude={"threads", "workers"}),
                "originals": {side: len(groups) for side, groups in sides.items()},
                "copies": {side: sum(map(len, groups)) for side, groups in sides.items()},
                "packages": package_versions(),
            },
            "metrics": metrics,
            "conformance": (_vector(detector),),
        }
    )
    save_card(card, out)
    (out / RESULTS).write_text(text)
    (out / "results.json").write_text(json.dumps(card.metrics, indent=2, sort_keys=True) + "\n")
    return text


def train_from_file(
    config: Path, data: Path, out: Path, name: str, *, release: str = "1", **changes: int | None
) -> str:
    """`train_detector` as a TOML file's `[detector]` and `[[boxes]]` ask for, with `changes` of the
    recipe, of which None changes nothing.

    Raises:
        ConfigError, TableError, CheckpointError: as `load_detector_config`, `read_boxed` and
            `train_detector`.
    """
    recipe, sets = load_detector_config(config)
    images = read_boxed(sets, data, recipe.rename)
    given = {key: value for key, value in changes.items() if value is not None}
    return train_detector(recipe.with_changes(**given), images, out, name, release=release)


def export(net: BoxNet, side: int, folder: Path) -> Path:
    """Write `model.onnx`: one image of any sides that are multiples of 32; weights stored as fp16.

    Raises:
        CheckpointError: if ONNX Runtime says something else than torch.
    """
    path = folder / _WEIGHTS
    # Two different sides, so that the exporter ties neither to a number nor to the other, and so
    # large that every level has several cells each way: what is 1 here is taken to be 1 for ever.
    example = torch.zeros(1, 3, 3 * max(STRIDES), 4 * max(STRIDES))
    height, width = (32 * torch.export.Dim(name, min=1, max=128) for name in ("h", "w"))
    model = trace(net, example, _OUTPUTS, {2: height, 3: width})
    onnx.save(store_half(model), str(path))
    session = open_session(path)
    for size in (side, 416):
        random = np.random.default_rng(0).normal(size=(1, 3, size, size)).astype(np.float32)
        exported = session.run(_OUTPUTS, {"images": random})
        with torch.inference_mode():
            expected = [part.numpy() for part in net(torch.from_numpy(random))]
        for name, said, true in zip(_OUTPUTS, exported, expected, strict=True):
            difference = float(np.abs(said - true).max())
            if not difference <= _TOLERANCE * max(1.0, float(np.abs(true).max()) / 10):
                raise CheckpointError(f"{path}: {name} differ from torch's by {difference:.3g}")
    return path


def _digest(recipe: DetectorRecipe, images: Sequence[BoxedImage]) -> str:
    serving = {"workers", "threads", "sides", "score", "overlap"}
    rows = [[image.path.name, image.boxes, image.labels, image.side] for image in images]
    return digest_json([recipe.model_dump(exclude=serving), rows])


def _read(out: Path) -> bytes:
    return (out / _WEIGHTS).read_bytes()


def _card(recipe: DetectorRecipe, weights: Path, name: str, release: str) -> DetectorCard:
    return DetectorCard.model_construct(
        name=name,
        version=release,
        weights=Weights(file=weights.name, sha256=digest_file(weights)),
        side=recipe.side,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        classes=recipe.classes,
        strides=STRIDES,
        score=recipe.score,
        overlap=recipe.overlap,
        conformance=(),
    )


def _vector(detector: Detector) -> Vector:
    """What the network says of a drawn scene."""
    data = encode_jpeg(synthetic_photo(), 90)
    image = detector.decode(data)
    size = (image.width, image.height)
    found = detector.detect(image.pixels, size)
    expected: dict[str, Any] = {
        name: round(value, 6)
        for name, value in to_numbers(found, detector.card.classes, size).items()
    }
    return Vector(image=base64.b64encode(data).decode(), expected=expected)
