"""Labelled pictures on disk, as the pipelines' networks are trained on them: every class has a
colour and a shape, every picture its own background."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

COLOURS = ((230, 40, 40), (40, 200, 60), (50, 80, 230), (230, 210, 40), (200, 60, 220))


def picture(seed: int, kind: int = 0, side: int = 64) -> np.ndarray:
    """A block or a disc in the colour of `kind` on coarse grey noise; HWC uint8 RGB."""
    random = np.random.default_rng(seed)
    coarse = random.integers(40, 216, (7, 7), np.uint8)
    grey = np.asarray(Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC))
    pixels = np.repeat(grey[..., None], 3, axis=2)
    pixels[inside(seed, kind, side)] = COLOURS[kind % len(COLOURS)]
    return pixels


def inside(seed: int, kind: int, side: int) -> np.ndarray:
    """Where the shape of a picture is, (side, side) bool."""
    left, top, right, bottom = box(seed, side)
    y, x = np.mgrid[0:side, 0:side] + 0.5
    if kind % 2:
        return (x > left) & (x < right) & (y > top) & (y < bottom)
    radius = (right - left) / 2
    return (x - left - radius) ** 2 + (y - top - radius) ** 2 < radius**2


def box(seed: int, side: int) -> tuple[int, int, int, int]:
    """The box around the shape of a picture, xyxy in its pixels."""
    random = np.random.default_rng(seed + 10_000)
    size = int(random.integers(side // 3, side // 2))
    left, top = (int(v) for v in random.integers(0, side - size, 2))
    return left, top, left + size, top + size


def save(path: Path, pixels: np.ndarray, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def save_classes(folder: Path, classes: Sequence[str], each: int, first: int = 0) -> list[Path]:
    """A tree with a folder a class and `each` pictures in it."""
    paths = []
    for kind, name in enumerate(classes):
        for number in range(each):
            seed = first + 1000 * kind + number
            paths.append(save(folder / name / f"{seed}.png", picture(seed, kind)))
    return paths


def save_table(path: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    """A CSV table; its columns are the first row's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def save_boxes(folder: Path, classes: Sequence[str], originals: int, side: int = 128) -> Path:
    """`boxes.json` in COCO's format and its images below `images`: one shape on each, and every
    third original has a second copy."""
    categories = [{"id": number, "name": name} for number, name in enumerate(classes)]
    images, annotations = [], []
    for original in range(originals):
        kind = original % len(classes)
        left, top, right, bottom = box(original, side)
        for copy in range(2 if original % 3 == 0 else 1):
            name = f"photo{original}_jpg.rf.{copy}.jpg"
            save(folder / "images" / name, picture(original, kind, side), quality=92 - copy)
            number = len(images)
            images.append({"id": number, "file_name": name})
            annotations.append(
                {
                    "image_id": number,
                    "category_id": kind,
                    "bbox": [left, top, right - left, bottom - top],
                }
            )
    path = folder / "boxes.json"
    path.write_text(
        json.dumps({"categories": categories, "images": images, "annotations": annotations})
    )
    return path
