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
    ],
)
def test_wrong_class_tables_are_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "truth.csv").write_text(text)
    with pytest.raises(TableError, match=message):
        read_truth(tmp_path / "truth.csv")
    with pytest.raises(TableError, match="ground truth"):
        read_truth(tmp_path / "absent.csv")


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
