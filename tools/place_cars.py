"""Photographs of cars with boxes, from cars that were cut out: a car is laid on a photograph.

    python tools/place_cars.py --config configs/pipelines/car-model.toml --data DIR \
        --backgrounds DIR/boxes.json --out DIR/placed [--limit 1500]

The cars are those of the configuration's sets; backgrounds are the images of a COCO table (from
`tools/find_boxes.py`) on which there is nothing, below DIR. Each car is laid on one of them, a
quarter to nine tenths of its width wide, somewhere inside, its edges blended over a few pixels.
Which goes where is decided by names alone; cars of the test side are laid on backgrounds of the
test side. Written are `train/` with `boxes.json` (COCO), where every other car stands as it is cut
out too, with a box around all of it, and `test/`; and `labels.csv`: path, class and side of each.
"""

import argparse
import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from pipelines.boxed import side_of
from pipelines.car_model.answer import NO_CAR
from pipelines.car_model.data import load_job
from pipelines.car_model.pipeline import HEAD
from pipelines.examples import Example
from utility_gate.files import read_source
from utility_gate.images import decode, encode_jpeg
from utility_gate.split import unit_hash

TRAIN, TEST = "train", "test"
ALONE = "-alone.jpg"

LONGEST = 800
WIDTHS = (0.25, 0.9)
TALLEST = 0.9
QUALITY = 92


@dataclass(frozen=True)
class Placed:
    """A photograph and where the car is on it, x, y, width and height in pixels."""

    name: str
    size: tuple[int, int]
    box: tuple[int, int, int, int]
    example: Example


def place(car: Image.Image, scene: Image.Image, key: str) -> tuple[Image.Image, tuple[int, ...]]:
    """The car on the scene, and its box."""
    scene.thumbnail((LONGEST, LONGEST))
    width = scene.width * (WIDTHS[0] + (WIDTHS[1] - WIDTHS[0]) * unit_hash("width", key))
    width = min(width, TALLEST * scene.height * car.width / car.height)
    size = (max(1, round(width)), max(1, round(width * car.height / car.width)))
    left = round(unit_hash("left", key) * (scene.width - size[0]))
    top = round(unit_hash("top", key) * (scene.height - size[1]))
    blend = max(1, size[1] // 40)
    mask = Image.new("L", size, 0)
    ImageDraw.Draw(mask).rectangle(
        (blend, blend, size[0] - 1 - blend, size[1] - 1 - blend), fill=255
    )
    mask = mask.filter(ImageFilter.GaussianBlur(blend / 2))
    scene.paste(car.resize(size, Image.Resampling.LANCZOS), (left, top), mask)
    return scene, (left, top, *size)


def empty_images(table: Path, data: Path) -> dict[str, list[Path]]:
    """The images of a COCO table on which there is nothing, by the side that they are on."""
    coco = json.loads(table.read_text())
    full = {annotation["image_id"] for annotation in coco["annotations"]}
    sides: dict[str, list[Path]] = {"train": [], "validation": [], "test": []}
    for image in coco["images"]:
        if image["id"] not in full:
            sides[side_of(image["file_name"])].append(data / image["file_name"])
    return sides


def read(path: Path) -> Image.Image:
    """An image as RGB."""
    return Image.fromarray(decode(read_source(path)).pixels)


def place_all(cars: list[Example], scenes: dict[str, list[Path]], out: Path) -> Iterator[Placed]:
    """Each car on a scene, and every other one that teaches as it is."""
    for number, car in enumerate(cars):
        picture, test = read(car.path), car.side == "test"
        folder = out / (TEST if test else TRAIN)
        folder.mkdir(parents=True, exist_ok=True)
        # Both copies of a car are on one side when they teach, and so is the background.
        choices = scenes["test" if test else side_of(car.path.stem)]
        choice = choices[int(unit_hash("scene", car.path.name) * len(choices))]
        scene, (left, top, width, height) = place(picture, read(choice), car.path.name)
        name = f"{folder.name}/{car.path.stem}.jpg"
        (out / name).write_bytes(encode_jpeg(np.asarray(scene), QUALITY))
        yield Placed(name, scene.size, (left, top, width, height), car)
        if number % 2 and not test:
            picture.thumbnail((LONGEST, LONGEST))
            name = f"{folder.name}/{car.path.stem}{ALONE}"
            (out / name).write_bytes(encode_jpeg(np.asarray(picture), QUALITY))
            yield Placed(name, picture.size, (0, 0, *picture.size), car)


def main() -> None:
    """Place them, and write down where."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--backgrounds", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=1500)
    args = parser.parse_args()
    _, job = load_job(args.config, args.data, args.out)
    cars = [example for example in job.examples if example.labels[HEAD][0] != NO_CAR]
    cars.sort(key=lambda example: unit_hash("place", example.path.name))
    placed = list(
        place_all(cars[: args.limit], empty_images(args.backgrounds, args.data), args.out)
    )
    train = [one for one in placed if one.name.startswith(TRAIN)]
    table = {
        "images": [
            {"id": i, "file_name": one.name, "width": one.size[0], "height": one.size[1]}
            for i, one in enumerate(train)
        ],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 1, "bbox": one.box}
            for i, one in enumerate(train)
        ],
        "categories": [{"id": 1, "name": "car"}],
    }
    (args.out / "boxes.json").write_text(json.dumps(table))
    with (args.out / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "class_name", "split"))
        for one in placed:
            if not one.name.endswith(ALONE):
                split = one.name.partition("/")[0]
                writer.writerow((one.name, one.example.labels[HEAD][0], split))
    print(f"{len(placed)} photographs")


if __name__ == "__main__":
    main()
