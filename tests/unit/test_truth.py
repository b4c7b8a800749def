"""Ground truth files: what is read, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from labelers.truth import Truth, list_sources, read_coco, read_truth
from utility_gate.errors import TableError
from utility_gate.files import digest_file


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\na.jpg,1\n", "missing.*class_index"),
        ("path,class_index\na.jpg,cat\n", "line 2: expected an integer class_index, got 'cat'"),
        ("path,class_index\na.jpg,1\na.jpg,2\n", "found twice"),
        ("path,class_index\n", "found none"),
        ("path,class_index\n/a.jpg,1\n", "below the image folder, got '/a.jpg'"),
        ("path,class_index\n../a.jpg,1\n", "below the image folder"),
        ("path,class_index\n\n\na.jpg,x\n", "line 4: expected an integer"),
        ("path,class_index\n./a.jpg,1\n", "expected the path 'a.jpg'"),
        ("path,class_index\na.jpg,1_0\n", "expected an integer class_index, got '1_0'"),
        ("path,class_index\na.jpg,--5\n", "expected an integer class_index, got '--5'"),
        ("class_index,path\n5\n", "line 2: expected a path, got none"),
    ],
)
def test_wrong_class_tables_are_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "truth.csv").write_text(text)
    with pytest.raises(TableError, match=message):
        read_truth(tmp_path / "truth.csv")
    with pytest.raises(TableError, match="ground truth"):
        read_truth(tmp_path / "absent.csv")


def test_names_of_classes_are_for_people(tmp_path: Path) -> None:
    text = "path,class_index,name\na.jpg,1,cat\nb.jpg,2,\nc.jpg,1,kitten\n"
    (tmp_path / "truth.csv").write_text(text)
    assert read_truth(tmp_path / "truth.csv").names == {1: "cat"}


def test_what_spreadsheets_write_is_read(tmp_path: Path) -> None:
    text = "\ufeffpath,class_index\r\na.jpg,1\r\n,\r\n"
    (tmp_path / "truth.csv").write_text(text, encoding="utf-8")
    assert read_truth(tmp_path / "truth.csv").rows == (Truth("a.jpg", true_class=1),)


def coco() -> dict[str, Any]:
    return {
        "images": [
            {"id": 7, "file_name": "a.jpg", "width": 40, "height": 30},
            {"id": 8, "file_name": "b.jpg"},
        ],
        "categories": [{"id": 1, "name": "person"}, {"id": 3, "name": "car"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 3, "bbox": [1, 2, 10, 20], "iscrowd": 0},
            {"id": 2, "image_id": 7, "category_id": 1, "bbox": [0, 0, 40, 30], "iscrowd": 1},
            {"id": 3, "image_id": 7, "category_id": 1, "bbox": [5, 5, 0, 3]},
        ],
    }


def write(path: Path, content: dict[str, Any]) -> Path:
    path.write_text(json.dumps(content))
    return path


def test_coco_objects(tmp_path: Path) -> None:
    path = write(tmp_path / "instances.json", coco())
    truth = read_coco(path)
    assert truth.names == {1: "person", 3: "car"}
    assert truth.digest == digest_file(path)
    assert truth.rows == (
        # the crowd and the box without area are left out
        Truth("a.jpg", boxes=((1, 2, 11, 22),), categories=(3,), size=(40, 30)),
        Truth("b.jpg", boxes=(), categories=()),
    )


def test_wrong_coco_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "instances.json"
    (tmp_path / "junk.json").write_text("[]")
    for file in (tmp_path / "junk.json", tmp_path / "absent.json"):
        with pytest.raises(TableError, match="expected COCO ground truth"):
            read_coco(file)
    content = coco()
    content["annotations"][0]["category_id"] = 9
    with pytest.raises(TableError, match="annotation 1: expected a listed image and category"):
        read_coco(write(path, content))
    content = coco()
    content["images"][1]["id"] = 7
    with pytest.raises(TableError, match="each image id once"):
        read_coco(write(path, content))
    content = coco()
    content["images"][1]["file_name"] = "a.jpg"
    with pytest.raises(TableError, match="found twice"):
        read_coco(write(path, content))
    content = coco()
    del content["annotations"][0]["bbox"]
    with pytest.raises(TableError, match="bbox"):
        read_coco(write(path, content))


def test_sources_without_ground_truth(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    for name in ("z.png", "b/a.JPG", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    assert [row.path for row in list_sources(tmp_path).rows] == ["b/a.JPG", "z.png"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(TableError, match="at least one image"):
        list_sources(tmp_path / "empty")
    with pytest.raises(TableError, match="expected a folder"):
        list_sources(tmp_path / "absent")


@pytest.mark.parametrize("category", [{"id": 1, "name": "dog"}, {"id": 4, "name": "car"}])
def test_a_category_that_stands_twice_is_refused(tmp_path: Path, category: dict[str, Any]) -> None:
    content = coco()
    content["categories"].append(category)
    with pytest.raises(TableError, match="each category id and name once"):
        read_coco(write(tmp_path / "instances.json", content))


@pytest.mark.parametrize(
    ("where", "key", "value", "message"),
    [
        ("annotations", "bbox", [1, 2, float("nan"), 3], "in numbers"),
        ("annotations", "bbox", "1234", "in numbers"),
        ("annotations", "bbox", [1, 2, 10**400, 3], "expected COCO ground truth"),
        ("annotations", "category_id", "3", "category '3'"),
        ("annotations", "iscrowd", "0", "iscrowd 0 or 1, got '0'"),
        ("images", "id", 1.7, "whole number, got 1.7"),
        ("images", "file_name", None, "a text, got None"),
        ("images", "file_name", "a\0b", "below the image folder"),
        ("images", "file_name", "\ud800.jpg", "below the image folder"),
        ("categories", "name", 3, "a text, got 3"),
    ],
)
def test_values_of_the_wrong_kind_are_refused(
    tmp_path: Path, where: str, key: str, value: object, message: str
) -> None:
    content = coco()
    content[where][0][key] = value
    with pytest.raises(TableError, match=message):
        read_coco(write(tmp_path / "instances.json", content))


@pytest.mark.parametrize("box", [[40, 0, 5, 5], [-9, 0, 5, 5], [0, 30, 5, 5], [1, 1, -3, 4]])
def test_boxes_of_which_nothing_can_be_seen_are_left_out(tmp_path: Path, box: list[int]) -> None:
    content = coco()
    content["annotations"][0]["bbox"] = box
    assert read_coco(write(tmp_path / "instances.json", content)).rows[0].boxes == ()
