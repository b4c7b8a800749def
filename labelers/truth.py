"""Ground truth: classes from a CSV table, objects from a COCO file, or none at all."""

from __future__ import annotations

import csv
import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from labelers.networks import Classifier, Detector, NetworkFacts
from utility_gate.errors import NetworkError, TableError
from utility_gate.files import digest_file, find_images

Box = tuple[float, float, float, float]


_WHOLE_NUMBER = re.compile(r"-?[0-9]+")
_MALFORMED = (
    OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError,
)  # fmt: skip
"""What JSON of another shape than COCO's raises while it is read."""


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
    """All sources in their order; `names` of the classes or categories, as far as the file has
    them; `digest` of the file, None where there is none."""

    rows: tuple[Truth, ...]
    names: dict[int, str]
    digest: str | None


def read_truth(path: Path) -> GroundTruth:
    """Classes from a CSV with the columns `path` (below the image folder) and `class_index`, and
    perhaps `name`, the class's for people; further columns are ignored.

    Raises:
        TableError: if the file, a column or a value is missing, or a path stands twice.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:  # spreadsheets write a BOM
            reader = csv.DictReader(file)
            missing = {"path", "class_index"} - set(reader.fieldnames or [])
            if missing:
                raise TableError(f"{path}: expected columns path,class_index; missing {missing}")
            rows, names = [], dict[int, str]()
            for row in filter(_is_filled, reader):
                rows.append(_class_row(path, reader.line_num, row))
                if row.get("name"):
                    names.setdefault(int(row["class_index"]), row["name"])
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TableError(f"{path}: expected a CSV table of ground truth: {error}") from error
    return _finish(path, rows, names)


def read_coco(path: Path) -> GroundTruth:
    """Objects from a COCO `instances` file. Crowds and boxes without area are left out; images
    without objects stay.

    Raises:
        TableError: if it is no COCO file, or an image, an id or a category is twice there or
            missing.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        names = {_whole(c["id"]): _text(c["name"]) for c in content["categories"]}
        images = {_whole(image["id"]): image for image in content["images"]}
        objects: dict[int, list[tuple[Box, int]]] = {number: [] for number in images}
        for annotation in content["annotations"]:
            found = _object(path, annotation, names, images)
            if found is not None:
                objects[annotation["image_id"]].append(found)
        rows = [_objects_row(image, objects[number]) for number, image in images.items()]
    except _MALFORMED as error:
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
    for name in names:
        _check_path(images, name)
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


def _is_filled(row: dict[str, str]) -> bool:
    return any(value and value.strip() for value in row.values() if isinstance(value, str))


def _class_row(path: Path, number: int, row: dict[str, str]) -> Truth:
    text, name = row["class_index"], row["path"]
    if name is None:
        raise TableError(f"{path}: line {number}: expected a path, got none")
    if text is None or not _WHOLE_NUMBER.fullmatch(text.strip()):
        raise TableError(f"{path}: line {number}: expected an integer class_index, got {text!r}")
    return Truth(name, true_class=int(text))


def _object(
    path: Path, annotation: dict[str, Any], names: dict[int, str], images: dict[int, Any]
) -> tuple[Box, int] | None:
    """An annotation's box and category; None for a crowd, and for a box of which nothing lies in
    the image."""
    where = f"{path}: annotation {annotation.get('id')}"
    box, category = annotation["bbox"], annotation["category_id"]
    numbers = isinstance(box, list) and len(box) == 4 and all(map(_is_number, box))
    if not numbers or not all(math.isfinite(value) for value in box):
        raise TableError(f"{where}: expected bbox [x, y, width, height] in numbers, got {box!r}")
    if category not in names or annotation["image_id"] not in images:
        raise TableError(
            f"{where}: expected a listed image and category, got image "
            f"{annotation['image_id']!r} and category {category!r}"
        )
    if annotation.get("iscrowd", 0) not in (0, 1):
        raise TableError(f"{where}: expected iscrowd 0 or 1, got {annotation['iscrowd']!r}")
    x, y, width, height = map(float, box)
    image = images[annotation["image_id"]]
    right, bottom = image.get("width", math.inf), image.get("height", math.inf)
    shown = width > 0 and height > 0 and x < right and y < bottom and x + width > 0 < y + height
    if annotation.get("iscrowd") or not shown:
        return None
    return (x, y, x + width, y + height), category


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _objects_row(image: dict[str, Any], objects: list[tuple[Box, int]]) -> Truth:
    known = "width" in image
    size = (_whole(image["width"]), _whole(image["height"])) if known else None
    boxes, categories = tuple(box for box, _ in objects), tuple(number for _, number in objects)
    return Truth(_text(image["file_name"]), boxes=boxes, categories=categories, size=size)


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"expected a whole number, got {value!r}")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected a text, got {value!r}")
    return value


def _check_path(table: Path, path: str) -> None:
    """What is below the image folder, and can be the name of a file."""
    parts = PurePosixPath(path)
    writable = "\0" not in path and path.encode(errors="replace").decode() == path
    if not path or not writable or parts.is_absolute() or ".." in parts.parts:
        raise TableError(f"{table}: expected paths below the image folder, got {path!r}")
    if str(parts) != path:
        raise TableError(f"{table}: expected the path {str(parts)!r}, got {path!r}")


def _finish(path: Path, rows: list[Truth], names: dict[int, str]) -> GroundTruth:
    for row in rows:
        _check_path(path, row.path)
    twice = sorted(name for name, times in Counter(r.path for r in rows).items() if times > 1)
    if twice:
        raise TableError(f"{path}: expected each image once, found twice: {twice[:5]}")
    if not rows:
        raise TableError(f"{path}: expected at least one image, found none")
    return GroundTruth(tuple(rows), names, digest_file(path))
