"""Drawn photographs with tables of labels and observations, small enough to evaluate in a second.

Networks look at colour and quality as the tests want them to; predictors are
`tests.conftest.save_brightness_predictor`, whose utility rises with an image's red.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.conftest import encode
from utility_gate.degrade import Degradation, Jpeg, to_json
from utility_gate.files import digest_bytes
from utility_gate.split import split_of
from utility_gate.tables import (
    CLASSIFICATION_SCHEMA,
    DETECTION_SCHEMA,
    to_table,
    write_labels,
    write_table,
)
from utility_gate.types import Copy, DetectionObservation, Label, Observation

SIDE = 64
METADATA = {"voters": ["x", "y"], "networks": {"x": 1, "y": 2}, "rule": {"t_high": 0.9}}
CATEGORIES = ["nothing", "square", "disc"]


def red_of(number: int) -> int:
    """How red the photograph of a number is, 0-255."""
    return 40 + (number * 97) % 176


def photograph(number: int) -> np.ndarray:
    """Noise around a grey that is more or less red; HWC uint8 RGB."""
    random = np.random.default_rng(number)
    pixels = random.normal(110, 25, (SIDE, SIDE, 3))
    pixels[..., 0] += red_of(number) - 110
    return pixels.clip(0, 255).astype(np.uint8)


def save_photographs(folder: Path, count: int) -> list[str]:
    """PNGs below two folders; their paths."""
    names = []
    for number in range(count):
        name = f"{'even' if number % 2 == 0 else 'odd'}/{number}.png"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(encode(photograph(number), "PNG"))
        names.append(name)
    return names


def copies(folder: Path, name: str, degradations: Sequence[Degradation]) -> list[Copy]:
    """The pristine copy and the degraded ones of a photograph."""
    data = (folder / name).read_bytes()
    digest = digest_bytes(data)
    pixels = photograph(int(Path(name).stem))
    made = [
        Copy(source=name, source_digest=digest, degradation="none", parameters="{}", quality=None,
             image_digest=digest)
    ]  # fmt: skip
    for degradation in degradations:
        copy = digest_bytes(degradation.apply(pixels, digest))
        made.append(
            Copy(
                source=name, source_digest=digest, degradation=degradation.name,
                parameters=to_json(degradation), quality=degradation.quality, image_digest=copy,
            )
        )  # fmt: skip
    return made


def save_labels(
    path: Path,
    folder: Path,
    names: Sequence[str],
    rule: Callable[[int, Copy], int | None],
    degradations: Sequence[Degradation] = (Jpeg(90), Jpeg(30), Jpeg(5)),
    **metadata: Any,
) -> Path:
    """A label table; `rule` labels the copy of a photograph's number."""
    rows = []
    for name in names:
        for copy in copies(folder, name, degradations)[1:]:
            value = rule(int(Path(name).stem), copy)
            rows.append(
                Label(
                    **copy.fields(), split=split_of(copy.source_digest), label=value, utility=None,
                    useful_votes=2 if value else 0, non_useful_votes=2 if value == 0 else 0,
                    networks=2,
                )
            )  # fmt: skip
    write_labels(rows, path, METADATA | metadata)
    return path


def save_classifiers(
    path: Path,
    folder: Path,
    names: Sequence[str],
    right: dict[str, Callable[[int, Copy], bool]],
    qualities: Sequence[int],
    top1: Callable[[Copy], float] = lambda copy: (copy.quality or 100) / 100,
) -> Path:
    """Observations of classifiers that are right where a function says so."""
    rows = [
        Observation(
            **copy.fields(), network=network, network_digest="2" * 64, true_class=1,
            predicted_class=int(knows(int(Path(name).stem), copy)), top1=top1(copy), ccsp=0.5,
        )
        for name in names
        for copy in copies(folder, name, [Jpeg(quality) for quality in qualities])
        for network, knows in right.items()
    ]  # fmt: skip
    write_table(to_table(rows, CLASSIFICATION_SCHEMA), path, {"task": "classification"})
    return path


def box_of(number: int) -> tuple[float, float, float, float]:
    """Where the object of a photograph is."""
    left = float(number % 20)
    return left, 10.0, left + 30.0, 40.0


def save_detectors(
    path: Path,
    folder: Path,
    names: Sequence[str],
    right: dict[str, Callable[[int, Copy], bool]],
    qualities: Sequence[int],
) -> Path:
    """Observations of detectors that find the one object, or something far from it."""
    rows = []
    for name in names:
        number = int(Path(name).stem)
        for copy in copies(folder, name, [Jpeg(quality) for quality in qualities]):
            for network, finds in right.items():
                found = finds(number, copy)
                box = list(box_of(number)) if found else [0.0, 50.0, 8.0, 60.0]
                rows.append(
                    DetectionObservation(
                        **copy.fields(), network=network, network_digest="3" * 64,
                        reference_objects=1, boxes=[box], classes=[1 + number % 2],
                        scores=[0.5 + number / 1000], objects=[0 if found else -1],
                        ious=[1.0 if found else 0.0],
                    )
                )  # fmt: skip
    metadata = {
        "task": "detection",
        "networks": {network: {"categories": CATEGORIES} for network in right},
    }
    write_table(to_table(rows, DETECTION_SCHEMA), path, metadata)
    return path


def save_truth(path: Path, names: Sequence[str]) -> Path:
    """The same objects as a COCO file, whose category numbers are not the detectors'."""
    images, annotations = [], []
    for place, name in enumerate(names):
        number = int(Path(name).stem)
        left, top, right, bottom = box_of(number)
        images.append({"id": place, "file_name": name, "width": SIDE, "height": SIDE})
        annotations.append(
            {"id": place, "image_id": place, "category_id": 10 + number % 2,
             "bbox": [left, top, right - left, bottom - top]}
        )  # fmt: skip
    categories = [{"id": 10, "name": "square"}, {"id": 11, "name": "disc"}]
    path.write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )
    return path
