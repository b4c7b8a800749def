"""Ground truth: classes from a CSV table, objects from a COCO file, or none at all."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labelers.networks import Classifier, Detector, NetworkFacts
from utility_gate.errors import NetworkError, TableError
from utility_gate.files import digest_file, find_images

Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Truth:
    """What is true of one source image, `path` below the image folder.

    `true_class` is its class; or `boxes` (xyxy, pixels) and `categories` are its objects, in an
    image of `size` (width, height). All None: the pristine image is the reference.
    """

    path: str
    true_class: int | None = None
    boxes: tuple[Box, ...] | None = None
    categories: tuple[int, ...] | None = None
    size: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class GroundTruth:
    """All sources in their order; `names` of a COCO file's categories; `digest` of the file,
    None where there is none."""

    rows: tuple[Truth, ...]
    names: dict[int, str]
    digest: str | None


def read_truth(path: Path) -> GroundTruth:
    """Classes from a CSV with the columns `path` (below the image folder) and `class_index`;
    further columns are ignored.

    Raises:
        TableError: if the file, a column or a value is missing, or a path stands twice.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            missing = {"path", "class_index"} - set(reader.fieldnames or [])
            if missing:
                raise TableError(f"{path}: expected columns path,class_index; missing {missing}")
            rows = [_class_row(path, number, row) for number, row in enumerate(reader, 2)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TableError(f"{path}: expected a CSV table of ground truth: {error}") from error
    return _finish(path, rows, {})


def read_coco(path: Path) -> GroundTruth:
    """Objects from a COCO `instances` file. Crowds and boxes without area are left out; images
    without objects stay.

    Raises:
        TableError: if it is no COCO file, or an image, an id or a category is twice there or
            missing.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        names = {int(c["id"]): str(c["name"]) for c in content["categories"]}
        images = {int(image["id"]): image for image in content["images"]}
        objects: dict[int, list[tuple[Box, int]]] = {number: [] for number in images}
        for annotation in content["annotations"]:
            found = _object(path, annotation, names, images)
            if found is not None:
                objects[annotation["image_id"]].append(found)
        rows = [_objects_row(image, objects[number]) for number, image in images.items()]
    except (OSError, UnicodeDecodeError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise TableError(
            f"{path}: expected COCO ground truth (images, annotations, categories): {error!r}"
        ) from error
    if len(set(names.values())) != len(content["categories"]):
        raise TableError(f"{path}: expected each category id and name once, found some twice")
    if len(images) != len(content["images"]):
        raise TableError(f"{path}: expected each image id once, found some twice")
    return _finish(path, rows, names)


def list_sources(images: Path) -> GroundTruth:
    """Every image below a folder, in sorted order, without ground truth.

    Raises:
        TableError: if there is none.
    """
    if not images.is_dir():
        raise TableError(f"{images}: expected a folder of images, found none")
    names = [file.relative_to(images).as_posix() for file in find_images([images])]
    if not names:
        raise TableError(f"{images}: expected at least one image, found none")
    return GroundTruth(tuple(Truth(name) for name in names), {}, None)


def check_fit(truth: GroundTruth, networks: Sequence[NetworkFacts]) -> None:
    """Refuse, before anything is computed, ground truth that does not fit a network's classes.

    Raises:
        TableError: naming the first image whose class a network does not have.
        NetworkError: if classifiers do not agree about the number of classes, or a detector
            lacks a category.
    """
    if len({network.classes for network in networks}) > 1:
        counts = ", ".join(f"{network.name} {network.classes}" for network in networks)
        raise NetworkError(
            f"expected networks with the same classes, got {counts}; is `background` missing from "
            "an entry?"
        )
    for network in networks:
        if network.categories is not None:
            class_numbers(truth.names, network)
        else:
            for row in truth.rows:
                check_class(row, network)


def check_class(row: Truth, network: Classifier | NetworkFacts) -> None:
    """Refuse a class that a network does not have.

    Raises:
        TableError: naming the image.
    """
    known = network.classes
    if row.true_class is not None and known is not None and not 0 <= row.true_class < known:
        raise TableError(
            f"{row.path}: expected a class index in 0..{known - 1} for {network.name}, "
            f"got {row.true_class}"
        )


def class_numbers(names: dict[int, str], network: Detector | NetworkFacts) -> dict[int, int]:
    """A detector's own numbers for the ground truth's categories, matched by name.

    Raises:
        NetworkError: if it does not know a category.
    """
    own = {name: number for number, name in (network.categories or {}).items()}
    unknown = sorted(set(names.values()) - set(own))
    if unknown:
        raise NetworkError(
            f"{network.name}: expected to know every category of the ground truth, it lacks "
            f"{', '.join(unknown[:5])}; it knows {', '.join(list(own)[:5])}, ..."
        )
    return {number: own[name] for number, name in names.items()}


def _class_row(path: Path, number: int, row: dict[str, str]) -> Truth:
    try:
        return Truth(row["path"], true_class=int(row["class_index"]))
    except (TypeError, ValueError) as error:
        raise TableError(
            f"{path}: line {number}: expected an integer class_index, got {row['class_index']!r}"
        ) from error


def _object(
    path: Path, annotation: dict[str, Any], names: dict[int, str], images: dict[int, Any]
) -> tuple[Box, int] | None:
    x, y, width, height = map(float, annotation["bbox"])
    category = annotation["category_id"]
    if category not in names or annotation["image_id"] not in images:
        raise TableError(
            f"{path}: annotation {annotation.get('id')}: expected a listed image and category, "
            f"got image {annotation['image_id']} and category {category}"
        )
    if annotation.get("iscrowd") or not (width > 0 and height > 0):
        return None
    return (x, y, x + width, y + height), category


def _objects_row(image: dict[str, Any], objects: list[tuple[Box, int]]) -> Truth:
    size = (int(image["width"]), int(image["height"])) if "width" in image else None
    boxes, categories = tuple(box for box, _ in objects), tuple(number for _, number in objects)
    return Truth(str(image["file_name"]), boxes=boxes, categories=categories, size=size)


def _finish(path: Path, rows: list[Truth], names: dict[int, str]) -> GroundTruth:
    twice = sorted(name for name, times in Counter(r.path for r in rows).items() if times > 1)
    if twice:
        raise TableError(f"{path}: expected each image once, found twice: {twice[:5]}")
    if not rows:
        raise TableError(f"{path}: expected at least one image, found none")
    return GroundTruth(tuple(rows), names, digest_file(path))
