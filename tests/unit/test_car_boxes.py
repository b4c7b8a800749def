"""The tools that make photographs of cars with boxes."""

from __future__ import annotations

import csv
import json
import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines.boxed import side_of
from tests.checkpoints import BLUE, GREY, plain
from tests.labelled import save
from tests.networks import save_detector

TOOLS = Path(__file__).parents[2] / "tools"


def run_tool(monkeypatch: pytest.MonkeyPatch, name: str, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    runpy.run_path(str(TOOLS / name), run_name="__main__")


def read_coco(path: Path) -> tuple[set[str], dict[str, list[list[float]]]]:
    """The images of a table, and their boxes by their names."""
    table: dict[str, Any] = json.loads(path.read_text())
    names = {image["id"]: image["file_name"] for image in table["images"]}
    boxes: dict[str, list[list[float]]] = {}
    for annotation in table["annotations"]:
        boxes.setdefault(names[annotation["image_id"]], []).append(annotation["bbox"])
    return set(names.values()), boxes


def find(folder: Path, monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    """`thing`s are in the middle, as sure as there is red; `other`s follow the green."""
    networks = folder / "networks.toml"
    if not networks.exists():
        save_detector(folder)
    run_tool(
        monkeypatch, "find_boxes.py", "--networks", networks, "--network", "watcher",
        "--label", "car", "--images", folder, "--out", folder / "found.json", *arguments,
    )  # fmt: skip


def test_boxes_are_found_where_a_network_is_sure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in ("street", "damage"):
        for name, red in (("sure", 200), ("doubt", 80), ("none", 10)):
            save(tmp_path / folder / f"{name}.png", plain((red, 0, 0), 64, 48))
    (tmp_path / "street" / "broken.jpg").write_bytes(b"no image")
    (tmp_path / "street" / "notes.txt").write_text("no image either")
    find(tmp_path, monkeypatch, "--categories", "thing", "--folders", "street", "damage",
         "--shows", "damage")  # fmt: skip
    images, boxes = read_coco(tmp_path / "found.json")
    assert images == {"street/sure.png", "street/none.png", "damage/sure.png"}
    assert boxes == {name: [[16, 12, 32, 24]] for name in ("street/sure.png", "damage/sure.png")}
    assert capsys.readouterr().out == "3 photographs, 2 boxes; 4 left out, in doubt\n"


def test_one_object_of_two_categories_is_one_box(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "a" / "both.png", plain((200, 220, 0), 100, 100))
    find(tmp_path, monkeypatch, "--categories", "thing", "other", "--folders", "a")
    _, boxes = read_coco(tmp_path / "found.json")
    assert boxes["a/both.png"] == [[0, 0, 40, 50], [25, 25, 50, 50]], "they hardly overlap"
    # From an overlap of 0 on the surer one, which is the greener, stays alone.
    tool = runpy.run_path(str(TOOLS / "find_boxes.py"))
    tool["find"].__globals__["OVERLAP"] = 0.0
    network = tool["open_network"]("watcher", tmp_path / "networks.toml", "detection")
    size, kept = tool["find"](tmp_path / "a" / "both.png", network, [0, 1], 0.4, 0.25)
    assert (size, kept) == ((100, 100), [(0, 0, 40, 50)])


def test_a_category_that_the_network_does_not_know(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "a" / "one.png", plain(GREY))
    with pytest.raises(SystemExit, match="watcher does not know all of"):
        find(tmp_path, monkeypatch, "--categories", "thing", "lorry", "--folders", "a")


@pytest.fixture
def cut_out(tmp_path: Path) -> Path:
    """Cars, all blue, in two classes, photographs of grey, and what both tools take."""
    rows = []
    for number in range(60):
        name = f"cars/{number:05}.png"
        # Each of its own shade, or they would be copies of one picture.
        pixels = plain(BLUE, 80, 40)
        pixels[: number % 40, : 20 + number // 40] = (1, 1, 254)
        save(tmp_path / name, pixels)
        split = ("train", "val", "test")[number % 3]
        rows.append({"path": name, "class_name": f"BMW M{number % 2 + 1}", "split": split})
    with (tmp_path / "cars.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    (tmp_path / "cars.toml").write_text(
        '[[sets]]\ntable = "cars.csv"\nheads = { model = "class_name" }\nsplit = "split"\n'
        'group = "([^/]*)$"\n'
    )
    scenes = [f"scenes/{number}.png" for number in range(40)]
    for scene in scenes:
        save(tmp_path / scene, plain(GREY, 200, 120))
    save(tmp_path / "scenes/full.png", plain((255, 0, 0), 200, 120))
    images = [{"id": i, "file_name": name} for i, name in enumerate([*scenes, "scenes/full.png"])]
    full = [{"image_id": 40, "category_id": 1, "bbox": [0, 0, 9, 9]}]
    (tmp_path / "found.json").write_text(json.dumps({"images": images, "annotations": full}))
    return tmp_path


def place(folder: Path, out: Path, monkeypatch: pytest.MonkeyPatch, limit: int = 60) -> None:
    run_tool(
        monkeypatch, "place_cars.py", "--config", folder / "cars.toml", "--data", folder,
        "--backgrounds", folder / "found.json", "--out", out, "--limit", limit,
    )  # fmt: skip


def test_cars_are_laid_on_photographs_of_other_things(
    cut_out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = cut_out / "placed"
    place(cut_out, out, monkeypatch)
    with (out / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 60
    assert {row["class_name"] for row in rows} == {"BMW M1", "BMW M2"}
    assert sum(row["split"] == "test" for row in rows) == 20
    images, boxes = read_coco(out / "boxes.json")
    alone = {name for name in images if name.endswith("-alone.jpg")}
    assert 0 < len(alone) < 40 == len(images - alone)
    assert not any(name.startswith("test/") for name in images), "those are to test with"
    assert capsys.readouterr().out == f"{60 + len(alone)} photographs\n"
    for name in images:
        pixels = np.asarray(Image.open(out / name)).astype(int)
        ((left, top, width, height),) = boxes[name]
        inside = pixels[top : top + height, left : left + width]
        middle = inside[height // 4 : -height // 4, width // 4 : -width // 4]
        assert (middle[..., 2] > 200).all(), "there the car is"
        assert (middle[..., 0] < 60).all()
        if name in alone:
            assert (left, top, width, height) == (0, 0, 80, 40)
        else:
            assert 0.25 * 200 - 1 <= width <= 0.9 * 200 + 1
            outside = pixels.copy()
            outside[top : top + height, left : left + width] = 128
            far = np.abs(outside - 128)
            assert np.median(far) <= 2, "all around is the photograph"


def test_a_scene_is_the_same_every_time(cut_out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, limit in (("one", 60), ("two", 20)):
        place(cut_out, cut_out / name, monkeypatch, limit)
    fewer = sorted(path.relative_to(cut_out / "two") for path in (cut_out / "two").rglob("*.jpg"))
    assert len(fewer) >= 20
    for path in fewer:
        assert (cut_out / "one" / path).read_bytes() == (cut_out / "two" / path).read_bytes()


def test_copies_and_backgrounds_of_a_car_that_teaches_are_on_one_side(cut_out: Path) -> None:
    tool = runpy.run_path(str(TOOLS / "place_cars.py"))
    scenes = tool["empty_images"](cut_out / "found.json", cut_out)
    assert sum(map(len, scenes.values())) == 40, "not the one with a car"
    for side, paths in scenes.items():
        assert paths
        assert {side_of(path.relative_to(cut_out).as_posix()) for path in paths} == {side}
