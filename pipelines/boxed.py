"""Images with boxes around what is to be found, from COCO's JSON."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from pipelines.examples import FRACTIONS, GroupPattern, Side
from utility_gate.errors import TableError
from utility_gate.split import unit_hash


class BoxSet(BaseModel):
    """One TOML table `[[boxes]]`: a COCO JSON `table` and the `folder` of its images, below the
    data folder. `group` is a regular expression on the file's name whose first group tells copies
    of one original."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    table: str
    folder: str
    group: GroupPattern = "(.*)"


@dataclass(frozen=True, slots=True)
class BoxedImage:
    """One image; `boxes` are xyxy in its pixels, `labels` the names of their classes. Images of
    one `group` are copies of one original and never on two sides."""

    path: Path
    boxes: tuple[tuple[float, float, float, float], ...]
    labels: tuple[str, ...]
    group: str
    side: Side


def read_boxed(sets: Sequence[BoxSet], data: Path, rename: Mapping[str, str]) -> list[BoxedImage]:
    """Every image of the sets, each original on one side: 70, 15 and 15 % by their names alone,
    whatever sides the tables had them on. `rename` maps categories of the tables to our classes;
    what it leaves out is not looked for.

    Raises:
        TableError: if a table cannot be read or an image is missing.
    """
    images: dict[Path, BoxedImage] = {}
    for entry in sets:
        for image in _read_set(entry, data, rename):
            images[image.path] = image
    if not images:
        raise TableError(f"{data}: expected images with boxes, found none")
    return [images[path] for path in sorted(images)]


def _read_set(entry: BoxSet, data: Path, rename: Mapping[str, str]) -> Iterable[BoxedImage]:
    path = data / entry.table
    try:
        table: Mapping[str, Any] = json.loads(path.read_text())
        names = {category["id"]: category["name"] for category in table["categories"]}
        found = defaultdict(list)
        for annotation in table["annotations"]:
            label = rename.get(names[annotation["category_id"]])
            x, y, width, height = map(float, annotation["bbox"])
            if label is not None and width > 0 and height > 0:
                found[annotation["image_id"]].append(((x, y, x + width, y + height), label))
        files = {image["id"]: str(image["file_name"]) for image in table["images"]}
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise TableError(f"{path}: expected COCO's JSON: {error!r}") from error
    for number, name in files.items():
        image = data / entry.folder / name
        if not image.is_file():
            raise TableError(f"{path}: there is no image {image}")
        match = re.search(entry.group, name)
        group = match[1] if match else name
        boxes, labels = zip(*found[number], strict=True) if found[number] else ((), ())
        yield BoxedImage(image, boxes, labels, group, side_of(group))


def side_of(group: str) -> Side:
    """The side of an original, by its name alone."""
    where = unit_hash("boxes", group)
    if where < FRACTIONS["test"]:
        return "test"
    return "validation" if where < FRACTIONS["test"] + FRACTIONS["validation"] else "train"


def by_original(images: Iterable[BoxedImage], side: Side) -> list[list[BoxedImage]]:
    """The copies of each original of one side, originals and copies in the order of their names."""
    groups: dict[str, list[BoxedImage]] = defaultdict(list)
    for image in images:
        if image.side == side:
            groups[image.group].append(image)
    return [groups[name] for name in sorted(groups)]
