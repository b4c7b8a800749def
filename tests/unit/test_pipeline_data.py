"""Which pictures a pipeline's network is trained on: tables, trees, originals, sides, boxes."""

from __future__ import annotations

import csv
import json
import re
import shutil
import tomllib
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from labelers.images import ImageBatch
from labelers.onnx_networks import open_classifier
from pipelines.boxed import BoxSet, by_original, read_boxed, side_of
from pipelines.car_model import data as car_data
from pipelines.car_model.answer import NO_CAR
from pipelines.card import ClassifierCard
from pipelines.classifier import Classifier
from pipelines.damage import data as damage_data
from pipelines.examples import (
    ALIKE,
    SIDES,
    Example,
    ImageSet,
    _first_alike,
    assign_sides,
    check_labels,
    check_sides,
    fold_sides,
    load_sets,
    on_side,
    open_head,
    read_examples,
)
from pipelines.heads import Head
from pipelines.labelling import NETWORKS, TRUTH, write_labelling
from tests.checkpoints import save_car_model, save_damage
from tests.labelled import box, picture, save, save_boxes, save_classes, save_table
from utility_gate.checkpoint import load_card
from utility_gate.errors import ConfigError, TableError
from utility_gate.networks import load_specs
from utility_gate.split import unit_hash

CONFIGS = Path(__file__).parents[2] / "configs" / "pipelines"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    save_classes(tmp_path / "tree" / "Audi", ("TT", "A4"), 2)
    save_classes(tmp_path / "tree" / "BMW", ("M3",), 2, first=500)
    return tmp_path


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Four pictures in a folder beside `set/labels.csv`."""
    for number in range(4):
        save(tmp_path / "set" / "images" / f"{number}.png", picture(number))
    rows = [
        {"path": "images/0.png", "kind": "dent", "grade": "bad", "at": "front;rear",
         "part": "train"},
        {"path": "images/1.png", "kind": "scratch", "grade": "", "at": "", "part": "val"},
        {"path": "images/2.png", "kind": "", "grade": "fine", "at": "rear", "part": "valid"},
        {"path": "images/3.png", "kind": "scratch", "grade": "fine", "at": "", "part": "test"},
    ]  # fmt: skip
    save_table(tmp_path / "set" / "labels.csv", rows)
    return tmp_path


def names(examples: list[Example]) -> list[str]:
    return [example.path.stem for example in examples]


# Tables


def test_a_table_gives_pictures_their_labels_by_head_and_a_side(table: Path) -> None:
    entry = ImageSet(
        table="set/labels.csv",
        heads={"type": "kind", "severity": "grade", "location": "at"},
        rename={"bad": "severe"},
        split="part",
    )
    examples = read_examples([entry], table)
    assert [example.path for example in examples] == [
        table / "set" / "images" / f"{number}.png" for number in range(4)
    ]
    assert [dict(example.labels) for example in examples] == [
        {"type": ("dent",), "severity": ("severe",), "location": ("front", "rear")},
        {"type": ("scratch",)},  # an empty cell is not known
        {"severity": ("fine",), "location": ("rear",)},
        {"type": ("scratch",), "severity": ("fine",)},
    ]
    assert [example.side for example in examples] == ["train", "validation", "validation", "test"]


def test_a_constant_label_is_everybodys_and_rows_can_be_left_out(table: Path) -> None:
    entry = ImageSet(
        table="set/labels.csv",
        constant={"type": "none"},
        without={"kind": "^scratch$", "grade": "fin"},
    )
    (kept,) = read_examples([entry], table)
    assert (names([kept]), dict(kept.labels), kept.side) == (["0"], {"type": ("none",)}, None)


def test_tables_of_other_programs_are_read(table: Path) -> None:
    path = table / "set" / "labels.csv"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    path.write_text(path.read_text() + "images/3.png\n")  # a row that ends early
    entry = ImageSet(table="set/labels.csv", heads={"type": "kind"}, without={"grade": "bad"})
    assert names(read_examples([entry], table)) == ["1", "2", "3", "3"]


def test_a_limit_takes_the_same_pictures_whoever_else_is_there(tmp_path: Path) -> None:
    save_classes(tmp_path / "a", ("x",), 12)
    few = names(read_examples([ImageSet(folder="a", limit=5)], tmp_path))
    by_hash = sorted(
        (tmp_path / "a/x").iterdir(), key=lambda p: unit_hash("limit", f"a/x/{p.name}")
    )
    assert few == sorted(path.stem for path in by_hash[:5])
    assert names(read_examples([ImageSet(folder="a", limit=50)], tmp_path)) == sorted(
        names(read_examples([ImageSet(folder="a")], tmp_path))
    )
    elsewhere = tmp_path / "moved"
    shutil.copytree(tmp_path / "a", elsewhere / "a")
    assert names(read_examples([ImageSet(folder="a", limit=5)], elsewhere)) == few
    for path in sorted((tmp_path / "a" / "x").iterdir()):
        if path.stem not in few:
            path.unlink()
            break
    assert names(read_examples([ImageSet(folder="a", limit=5)], tmp_path)) == few


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"table": "set/none.csv"}, "expected a CSV table"),
        ({"table": "set/images/0.png"}, "expected a CSV table"),
        ({"heads": {"type": "kin"}}, r"missing \['kin'\]"),
        ({"path": "file"}, r"missing \['file'\]"),
        ({"split": "side"}, r"missing \['side'\]"),
        ({"without": {"year": "1"}}, r"missing \['year'\]"),
        ({"split": "kind"}, "line 2: expected train, val or test, got 'dent'"),
        ({"path": "kind"}, "line 2: there is no image .*set/dent"),
        ({"table": "empty.csv"}, "missing"),
    ],
)
def test_a_table_that_cannot_be_is_refused_with_the_place(
    table: Path, entry: dict[str, Any], message: str
) -> None:
    (table / "empty.csv").write_text("")
    with pytest.raises(TableError, match=message):
        read_examples([ImageSet(**{"table": "set/labels.csv"} | entry)], table)


def test_pictures_outside_the_data_folder_are_refused(table: Path, tmp_path: Path) -> None:
    elsewhere = save(tmp_path / "elsewhere.png", picture(9))
    save_table(table / "set" / "far.csv", [{"path": str(elsewhere)}])
    with pytest.raises(TableError, match=r"line 2: there is no image .*elsewhere.png below .*set"):
        read_examples([ImageSet(table="far.csv")], table / "set")


def test_all_rows_left_out_are_no_pictures(table: Path) -> None:
    entry = ImageSet(table="set/labels.csv", without={"path": "."})
    with pytest.raises(TableError, match="expected labelled images, found none"):
        read_examples([entry], table)


# Trees


def test_the_folders_of_a_tree_are_labels(tree: Path) -> None:
    entry = ImageSet(folder="tree", levels=("make", "model"), rename={"TT": "TT Coupe"})
    examples = read_examples([entry], tree)
    assert Counter((e.labels["make"], e.labels["model"]) for e in examples) == {
        (("Audi",), ("TT Coupe",)): 2,
        (("Audi",), ("A4",)): 2,
        (("BMW",), ("M3",)): 2,
    }
    makes = read_examples([ImageSet(folder="tree", levels=("make",), constant={"x": "y"})], tree)
    assert [dict(e.labels) for e in makes][-1] == {"make": ("BMW",), "x": ("y",)}  # deeper is fine


def test_a_tree_that_is_too_low_or_missing_is_refused(tree: Path) -> None:
    with pytest.raises(TableError, match="expected it below make/model/year in"):
        read_examples([ImageSet(folder="tree", levels=("make", "model", "year"))], tree)
    sets = [ImageSet(folder="tree"), ImageSet(folder="tre")]
    with pytest.raises(TableError, match="tre: expected a folder of images"):
        read_examples(sets, tree)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sets = 3",
        "sets = [3]",
        "[[sets]]\nlevels = []",
        '[[sets]]\ntable = "a"\nfolder = "b"',
        '[[sets]]\ntable = "a"\ncolour = "b"',
        '[[sets]]\ntable = "a"\nlimit = -1',
        '[[sets]]\ntable = "a"\ngroup = "("',
        '[[sets]]\ntable = "a"\ngroup = "^a"',
        '[[sets]]\ntable = "a"\nwithout = { b = "[" }',
        'alike = -1\n[[sets]]\ntable = "a"',
        'alike = 129\n[[sets]]\ntable = "a"',
        'alike = true\n[[sets]]\ntable = "a"',
        "[[sets",
        "\xff",
    ],
)
def test_sets_that_cannot_be_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"recipe.toml: expected \[\[sets\]\]"):
        load_sets(path)
    with pytest.raises(ConfigError, match=r"none.toml"):
        load_sets(tmp_path / "none.toml")


# Originals


def test_a_group_is_what_a_files_name_says_of_its_original(tmp_path: Path) -> None:
    for name in ("a.rf.1.png", "a.rf.2.png", "b.rf.1.png", "plain.png"):
        save(tmp_path / name, picture(0))
    examples = read_examples([ImageSet(folder=".", group=r"^(.*)\.rf\.")], tmp_path)
    assert [example.group for example in examples] == ["a", "a", "b", "plain.png"]


def test_copies_of_one_picture_are_found_by_how_they_look(tmp_path: Path) -> None:
    for seed in range(6):
        pixels = picture(seed, seed, side=96)
        save(tmp_path / f"{seed}.png", pixels)
        save(tmp_path / f"{seed}-again.jpg", pixels, quality=60)
        small = np.asarray(Image.fromarray(pixels).resize((80, 80), Image.Resampling.LANCZOS))
        save(tmp_path / f"{seed}-small.jpg", small, quality=90)
        (tmp_path / f"{seed}-copy.png").write_bytes((tmp_path / f"{seed}.png").read_bytes())
    entry = ImageSet(folder=".")
    groups = {e.path.stem: e.group for e in read_examples([entry], tmp_path, alike=ALIKE)}
    assert len(set(groups.values())) == 6
    for seed in range(6):
        assert groups[f"{seed}"] == groups[f"{seed}-again"] == groups[f"{seed}-small"]
    exact = {e.path.stem: e.group for e in read_examples([entry], tmp_path)}
    for seed in range(6):
        assert exact[f"{seed}"] == exact[f"{seed}-copy"]
    assert len(set(exact.values())) > 6


def test_copies_are_found_by_way_of_others_between_them() -> None:
    near, far = "0" * 31 + "7", "f" * 32
    assert _first_alike(["0" * 32, near, "0" * 30 + "3f", far], 3) == {
        "0" * 32: "0" * 32,
        near: "0" * 32,
        "0" * 30 + "3f": "0" * 32,  # six bits from the first, three from the second
        far: far,
    }
    # A fourth joins the first to a third that had joined the second.
    chain = [f"{bits:032x}" for bits in (0, 0b0011100011, 0b0110000011, 0b1000000011)]
    assert _first_alike(chain, 3) == dict.fromkeys(chain, chain[0])
    assert _first_alike([near, far], 0) == {near: near, far: far}
    assert _first_alike([], 3) == {}


@pytest.mark.parametrize(("alike", "originals"), [("", 2), (f"alike = {ALIKE}", 1)])
@pytest.mark.parametrize("pipeline", ["car_model", "damage"])
def test_near_copies_are_grouped_if_the_file_asks_for_it(
    tmp_path: Path, pipeline: str, alike: str, originals: int
) -> None:
    """Both pipelines' files have the option; without it only equal hashes are one original."""
    for number in range(8):
        save(tmp_path / "tree" / f"{number}.png", picture(number, number, side=96))
    save(tmp_path / "tree" / "0-again.jpg", picture(0, 0, side=96), quality=20)
    names = ("door_dent", "door_scratch") if pipeline == "damage" else ("Audi TT", "BMW M3")
    rows = [
        {"path": f"tree/{path.name}", "class": names[int(path.stem[0]) % 2], "grade": "minor"}
        for path in sorted((tmp_path / "tree").iterdir())
    ]
    save_table(tmp_path / "labels.csv", rows)
    heads = 'type = "class", severity = "grade"' if pipeline == "damage" else 'model = "class"'
    text = f'{alike}\n[[sets]]\ntable = "labels.csv"\nheads = {{ {heads} }}\n'
    config = write_config(tmp_path / "config.toml", text)
    if pipeline == "damage":
        job = damage_data.classifier_job(config, tmp_path, tmp_path)
    else:
        _, job = car_data.load_job(config, tmp_path, tmp_path)
    groups = {example.path.stem: example.group for example in job.examples}
    assert len(groups) == 9
    assert len({groups["0"], groups["0-again"]}) == originals
    assert len({group for stem, group in groups.items() if len(stem) == 1}) == 8


def test_what_is_no_picture_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("not an image")
    with pytest.raises(TableError, match=r"text.png: expected an image"):
        read_examples([ImageSet(folder=".")], tmp_path)


# Sides


def example(group: str, label: str = "a", side: Any = None, copy: int = 0) -> Example:
    return Example(Path(f"{group}-{copy}"), {"type": (label,)}, group, side)


def test_seventy_fifteen_and_fifteen_of_a_hundred_originals_of_each_class() -> None:
    examples = [example(f"{label}{n}", label) for label in "ab" for n in range(100)]
    sided = assign_sides([*examples, *(example(f"c{n}", "c") for n in range(20))])
    counts = Counter((e.labels["type"][0], e.side) for e in sided)
    for label in "ab":
        assert [counts[label, side] for side in SIDES] == [70, 15, 15]
    assert [counts["c", side] for side in SIDES] == [14, 3, 3]


@given(
    st.lists(
        st.tuples(
            st.integers(0, 30), st.sampled_from("abc"),
            st.sampled_from((None, None, "train", "validation", "test")),
        ),
        min_size=1, max_size=80,
    ),
    st.randoms(use_true_random=False),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_no_original_is_on_two_sides_and_order_does_not_matter(rows: Any, random: Any) -> None:
    examples = [example(f"g{g}", label, side, i) for i, (g, label, side) in enumerate(rows)]
    sided = {e.path: e.side for e in assign_sides(examples)}
    shuffled = list(examples)
    random.shuffle(shuffled)
    assert {e.path: e.side for e in assign_sides(shuffled)} == sided
    by_group: dict[str, set[Any]] = {}
    for one in examples:
        by_group.setdefault(one.group, set()).add(sided[one.path])
    assert all(len(sides) == 1 for sides in by_group.values())
    assert set(sided.values()) <= set(SIDES)


def test_originals_of_two_classes_are_sided_alike_in_any_order() -> None:
    both = [example(f"m{n}", label, copy=i) for n in range(20) for i, label in enumerate("ab")]
    examples = [*both, *(example(f"b{n}", "b") for n in range(27))]
    sided = {e.path: e.side for e in assign_sides(examples)}
    assert {e.path: e.side for e in assign_sides(examples[::-1])} == sided
    folded = {e.path: e.side for e in fold_sides(examples, 1, 5)}
    assert {e.path: e.side for e in fold_sides(examples[::-1], 1, 5)} == folded


def test_a_split_of_ones_own_is_respected_and_the_most_withheld_side_wins() -> None:
    given_sides = [example(f"t{n}", side="test") for n in range(5)]
    mixed = [example("m", side="train"), example("m", side="validation", copy=1)]
    copy = [example("t0", copy=1)]  # of another set, without a split
    sided = assign_sides([*given_sides, *mixed, *copy, *(example(f"n{n}") for n in range(20))])
    assert {e.side for e in sided if e.group.startswith("t")} == {"test"}
    assert {e.side for e in sided if e.group == "m"} == {"validation"}
    free = Counter(e.side for e in sided if e.group.startswith("n"))
    assert free == {"train": 14, "validation": 3, "test": 3}  # the given ones do not count


def test_every_original_is_tested_in_exactly_one_fold() -> None:
    examples = [
        example(f"{label}{n}", label, "train", copy)
        for label, count in (("a", 53), ("b", 20), ("c", 3))
        for n in range(count)
        for copy in range(2)
    ]
    tested: list[str] = []
    for fold in range(5):
        sided = fold_sides(examples, fold, 5)
        sides = {side: {e.group for e in on_side(sided, side)} for side in SIDES}
        assert not sides["test"] & (sides["train"] | sides["validation"])
        assert not sides["train"] & sides["validation"]
        assert set().union(*sides.values()) == {e.group for e in examples}
        tested += sides["test"]
        for label, count in (("a", 53), ("b", 20)):
            part = {side: sum(g[0] == label for g in groups) for side, groups in sides.items()}
            assert part["test"] in (count // 5, count // 5 + 1)
            assert round(part["validation"] * 8 / (count - part["test"])) == 1
        assert any(g[0] == "c" for g in sides["train"])  # rare classes are trained on
    assert len(tested) == len(set(tested)) == 53 + 20 + 3


@pytest.mark.parametrize(("fold", "folds"), [(0, 1), (0, 0), (5, 5), (-1, 5)])
def test_folds_that_cannot_be_are_refused(fold: int, folds: int) -> None:
    with pytest.raises(ConfigError, match=f"got {fold} of {folds}"):
        fold_sides([example("a")], fold, folds)


# Heads


def test_rare_classes_and_their_pictures_are_left_out() -> None:
    examples = [example(str(n), label) for n, label in enumerate("bbbaac")]
    head, kept = open_head("type", [*examples, Example(Path("x"), {}, "x")], minimum=2)
    assert head == Head("type", ("a", "b"))
    assert [dict(e.labels) for e in kept] == [{"type": (label,)} for label in "bbbaa"] + [{}]
    with pytest.raises(TableError, match="expected two classes of 3 or more images, got 1 of 3"):
        open_head("type", examples, minimum=3)


@pytest.mark.parametrize("classes", [(), ("a",), ("a", "a")])
def test_a_head_has_answers_to_choose_from(classes: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="head type: expected"):
        Head("type", classes)
    assert Head("at", ("front",), multi_label=True).index("front") == 0


def test_labels_that_a_head_does_not_know_are_found() -> None:
    heads = (Head("type", ("a", "b")),)
    check_labels([example("x"), Example(Path("y"), {}, "y")], heads)
    with pytest.raises(TableError, match="x-0: head type: expected one of a, b, got 'c'"):
        check_labels([example("x", "c")], heads)


def test_a_side_without_a_labelled_picture_is_found() -> None:
    heads = (Head("type", ("a", "b")), Head("at", ("front", "rear"), multi_label=True))
    check_sides([example("x")], [example("y")], heads)
    with pytest.raises(TableError, match=r"head type: .* on the test side"):
        check_sides([example("x")], [Example(Path("y"), {}, "y")], heads)
    with pytest.raises(TableError, match=r"head type: .* on the training side"):
        check_sides([], [example("x")], heads)


# Boxes

RENAME = {"minor-dent": "dent", "severe-dent": "dent", "minor-scratch": "scratch"}


def test_boxes_come_from_coco_with_our_classes_and_their_originals(tmp_path: Path) -> None:
    save_boxes(tmp_path, ("minor-dent", "severe-dent", "minor-scratch", "else"), 8)
    entry = BoxSet(table="boxes.json", folder="images", group=r"^(.*)\.rf\.")
    images = read_boxed([entry], tmp_path, RENAME)
    assert [image.path for image in images] == sorted((tmp_path / "images").iterdir())
    by_name = {image.path.name: image for image in images}
    first, copy = (by_name[f"photo0_jpg.rf.{n}.jpg"] for n in range(2))
    assert first.boxes == (tuple(map(float, box(0, 128))),)
    assert first.labels == copy.labels == ("dent",)
    assert first.group == copy.group == "photo0_jpg"
    assert by_name["photo1_jpg.rf.0.jpg"].labels == ("dent",)
    assert by_name["photo2_jpg.rf.0.jpg"].labels == ("scratch",)
    nothing = by_name["photo3_jpg.rf.0.jpg"]  # nobody asks for "else"
    assert (nothing.boxes, nothing.labels) == ((), ())
    for image in images:
        assert image.side == side_of(image.group)
    together = [copies for side in SIDES for copies in by_original(images, side)]
    assert sorted(map(len, together)) == [1, 1, 1, 1, 1, 2, 2, 2]
    assert all(len({image.group for image in copies}) == 1 for copies in together)


def test_originals_with_boxes_are_split_by_their_names_alone() -> None:
    counts = Counter(side_of(f"photo {n}") for n in range(4000))
    assert counts["test"] == pytest.approx(600, abs=70)
    assert counts["validation"] == pytest.approx(600, abs=70)
    assert counts["train"] == pytest.approx(2800, abs=100)


def test_boxes_without_an_inside_are_no_boxes(tmp_path: Path) -> None:
    path = save_boxes(tmp_path, ("minor-dent",), 1)
    table = json.loads(path.read_text())
    flat = {"image_id": 0, "category_id": 0, "bbox": [3, 3, 0, 9]}
    table["annotations"].insert(0, flat)
    path.write_text(json.dumps(table))
    (first, _) = read_boxed([BoxSet(table="boxes.json", folder="images")], tmp_path, RENAME)
    assert first.boxes == (tuple(map(float, box(0, 128))),)
    assert first.group == first.path.name  # no pattern: every file is an original


def change(table: Any, part: str, **fields: Any) -> Any:
    """COCO's JSON with other fields in the first entry of a part."""
    return table | {part: [table[part][0] | fields, *table[part][1:]]}


@pytest.mark.parametrize(
    ("mend", "message"),
    [
        (lambda table: [table], "expected COCO's JSON"),
        (lambda table: {k: v for k, v in table.items() if k != "annotations"}, "COCO's JSON"),
        (lambda table: table | {"images": [{"id": 0}]}, "COCO's JSON"),
        (lambda table: change(table, "annotations", category_id=7), "COCO's JSON"),
        (lambda table: change(table, "annotations", bbox=[1, 2, 3]), "COCO's JSON"),
        (lambda table: change(table, "annotations", bbox="abcd"), "COCO's JSON"),
        (lambda table: change(table, "images", file_name="x.jpg"), "there is no image .*x.jpg"),
        (lambda table: table | {"images": []}, "expected images with boxes, found none"),
    ],
)
def test_boxes_that_cannot_be_are_refused(tmp_path: Path, mend: Any, message: str) -> None:
    path = save_boxes(tmp_path, ("minor-dent",), 2)
    path.write_text(json.dumps(mend(json.loads(path.read_text()))))
    with pytest.raises(TableError, match=message):
        read_boxed([BoxSet(table="boxes.json", folder="images")], tmp_path, RENAME)
    path.write_bytes(b"\xff{")
    with pytest.raises(TableError, match="COCO's JSON"):
        read_boxed([BoxSet(table="boxes.json", folder="images")], tmp_path, RENAME)


def test_a_pattern_for_originals_has_a_group() -> None:
    for pattern in ("^a", "("):
        with pytest.raises(ValidationError, match="expected a regular expression"):
            BoxSet(table="a", folder="b", group=pattern)


# The pipelines' own


def write_config(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


CAR_SETS = """
minimum = 2
{options}
[[sets]]
folder = "tree"
levels = {levels}
[[sets]]
folder = "others"
constant = {{ model = "no car" }}
[recipe]
arch = "alexnet"
"""


@pytest.fixture
def cars(tmp_path: Path) -> Path:
    for model, count in (("TT 2.0", 3), ("TT TDI", 3), ("A4", 1)):
        save_classes(tmp_path / "tree" / "Audi", (model,), count, first=len(model))
    save_classes(tmp_path / "tree" / "Seat", ("TT",), 3, first=300)
    save_classes(tmp_path / "others", ("x",), 3, first=400)
    return tmp_path


def car_counts(folder: Path, options: str, levels: str) -> dict[str, int]:
    text = CAR_SETS.format(options=options, levels=levels)
    config = write_config(folder / "car.toml", text)
    _, job = car_data.load_job(config, folder, folder / "out")
    assert {example.side for example in job.examples} <= set(SIDES)
    counts = Counter(example.labels["model"][0] for example in job.examples)
    assert job.heads == (Head("model", tuple(sorted(counts))),)
    return counts


@pytest.mark.parametrize("levels", ['["make", "model"]', '["make", "name"]'])
def test_make_and_model_of_a_tree_are_one_class(cars: Path, levels: str) -> None:
    counts = car_counts(cars, f"join = {levels}", levels)
    assert counts == {"Audi TT 2.0": 3, "Audi TT TDI": 3, "Seat TT": 3, NO_CAR: 3}


def test_engines_and_trims_of_a_model_are_one_class_but_no_car_stays(cars: Path) -> None:
    levels = '["make", "model"]'
    counts = car_counts(cars, f"join = {levels}\nnormalize = true", levels)
    assert counts == {"Audi TT": 6, "SEAT TT": 3, NO_CAR: 3}


def test_pictures_of_no_known_model_are_left_out(tmp_path: Path) -> None:
    paths = save_classes(tmp_path, ("TT", "A4", "unknown"), 2)
    rows = [
        {"path": path.relative_to(tmp_path), "name": path.parent.name.replace("unknown", "")}
        for path in paths
    ]
    save_table(tmp_path / "labels.csv", rows)
    text = '[[sets]]\ntable = "labels.csv"\nheads = { model = "name" }\n'
    for options in ("", "normalize = true\n"):
        config = write_config(tmp_path / "car.toml", options + text)
        _, job = car_data.load_job(config, tmp_path, tmp_path)
        assert len(job.examples) == 4


@pytest.mark.parametrize("text", ["minimum = 0", "wrong_makes = 1.0", "minimun = 2", "[", "\xff"])
def test_car_models_options_that_cannot_be_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "car.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match="not a configuration of car_model"):
        car_data.load_job(path, tmp_path, tmp_path)


DAMAGE_SETS = """
[[sets]]
table = "labels.csv"
heads = {{ type = "kind", severity = "grade"{location} }}
"""


def damage_config(folder: Path, location: bool) -> Path:
    kinds, grades = ("door_dent", "door_scratch"), ("minor", "severe")
    rows = []
    for path in save_classes(folder, kinds, 10):
        number = int(path.stem)
        rows.append(
            {
                "path": path.relative_to(folder),
                "kind": path.parent.name,
                "grade": grades[number % 2],
                "at": ("front", "front;rear", "")[number % 3],
            }
        )
    save_table(folder / "labels.csv", rows)
    text = DAMAGE_SETS.format(location=', location = "at"' if location else "")
    return write_config(folder / "damage.toml", text)


@pytest.mark.parametrize("location", [False, True])
def test_the_damage_classifier_is_asked_for_the_place_if_there_are_labels_for_it(
    tmp_path: Path, location: bool
) -> None:
    job = damage_data.classifier_job(damage_config(tmp_path, location), tmp_path, tmp_path)
    assert [head.name for head in job.heads] == ["type", "severity", *(["location"] * location)]
    assert len(job.examples) == 20
    check_labels(job.examples, job.heads)
    if not location:  # two types, two severities: 5 of each pair
        assert [len(job.side(side)) for side in SIDES] == [12, 4, 4]


@pytest.mark.parametrize("name", ["car-model", "damage"])
def test_the_configurations_that_ship_are_read(name: str) -> None:
    path = CONFIGS / f"{name}.toml"
    sets = load_sets(path).sets
    assert len(sets) >= 2
    # Cars among ImageNet's classes are left out of what is no car.
    (pattern,) = [entry.without["name"] for entry in sets if entry.without]
    listed = ("Model_T", "cab", "garbage_truck", "golfcart", "recreational_vehicle", "wreck")
    assert all(re.search(pattern, label) for label in listed)
    assert not re.search(pattern, "cabbage")


# Labelling


def colour_tree(folder: Path) -> list[Path]:
    """Two flat pictures of each class of `checkpoints.DAMAGE_HEADS`' type but one."""
    colours = {"door_scratch": (255, 0, 0), "door_dent": (0, 255, 0), "no_car": (0, 0, 255)}
    return [
        save(folder / kind / f"{kind}{n}.png", np.full((40 + n, 60, 3), colour, np.uint8))
        for kind, colour in colours.items()
        for n in range(2)
    ]


def labelled(folder: Path, head: str) -> list[Example]:
    return [Example(path, {head: (path.parent.name,)}, path.stem) for path in colour_tree(folder)]


def test_a_head_labels_as_the_pipeline_classifies(tmp_path: Path) -> None:
    model = save_damage(tmp_path / "model") / "classifier"
    card, _ = load_card(model, ClassifierCard)
    examples = [
        *labelled(tmp_path / "data", "type"),
        Example(tmp_path / "data" / "x.png", {"severity": ("minor",)}, "x"),
    ]
    count = write_labelling(card, model, "type", examples, tmp_path / "data", tmp_path / "out")
    assert count == 6  # one has no label for the head
    with (tmp_path / "out" / TRUTH).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0] == {
        "path": "door_scratch/door_scratch0.png", "class_index": "0", "name": "door_scratch",
    }  # fmt: skip
    assert [row["class_index"] for row in rows] == ["0", "0", "1", "1", "3", "3"]

    (spec,) = load_specs(tmp_path / "out" / NETWORKS).values()
    assert (spec.name, spec.fit, spec.output_name) == ("colours_type", "stretch", "logits")
    assert spec.classes == (0, 4)
    assert spec.source == "colours 1, head type"
    network = open_classifier(spec)
    assert network.classes == 4
    pixels = [picture(seed, seed, side=50 + seed)[:, : 40 + seed] for seed in range(3)]
    said = network.forward(network.prepare(ImageBatch(pixels)))
    expected = [
        answers["type"].probabilities for answers in Classifier.load(model).classify(pixels)
    ]
    np.testing.assert_allclose(said, expected, atol=1e-6)


def test_a_later_heads_outputs_are_cut_out_and_temperature_is_the_labellers_matter(
    tmp_path: Path,
) -> None:
    model = save_damage(tmp_path / "model") / "classifier"
    card, _ = load_card(model, ClassifierCard)
    hot = card.model_copy(
        update={"heads": tuple(h.model_copy(update={"temperature": 2.0}) for h in card.heads)}
    )
    path = save(tmp_path / "a.png", picture(0))
    example = Example(path, {"severity": ("severe",)}, "a")
    write_labelling(hot, model, "severity", [example], tmp_path, tmp_path)
    (spec,) = load_specs(tmp_path / NETWORKS).values()
    assert spec.classes == (4, 2)
    classifier = Classifier(hot.model_copy(update={"conformance": ()}), hot_weights(model))
    (answers,) = classifier.classify([picture(0)])
    for temperature, same in ((2.0, True), (1.0, False)):
        network = open_classifier(spec, temperature)
        said = network.forward(network.prepare(ImageBatch([picture(0)])))[0]
        assert np.allclose(said, answers["severity"].probabilities, atol=1e-6) is same


def hot_weights(model: Path) -> bytes:
    return (model / "model.onnx").read_bytes()


def test_what_cannot_label_is_refused(tmp_path: Path) -> None:
    model = save_damage(tmp_path / "model") / "classifier"
    card, _ = load_card(model, ClassifierCard)
    data, out = tmp_path / "data", tmp_path / "out"
    examples = labelled(data, "type")
    with pytest.raises(ConfigError, match="one of the heads type, severity, got 'location'"):
        write_labelling(card, model, "location", examples, data, out)
    with pytest.raises(ConfigError, match="images with a label for severity, got none"):
        write_labelling(card, model, "severity", examples, data, out)
    strange = replace(examples[0], labels={"type": ("head_lamp",)})
    with pytest.raises(TableError, match="head type: expected one of door_scratch"):
        write_labelling(card, model, "type", [*examples, strange], data, out)
    assert not out.exists()


def test_the_pipelines_write_sources_of_pictures_that_were_held_out(tmp_path: Path) -> None:
    config = damage_config(tmp_path, location=False)
    model = save_damage(tmp_path / "model")
    out = tmp_path / "out"
    assert damage_data.write_sources(config, tmp_path, str(model), None, out) == (8, "type")
    job = damage_data.classifier_job(config, tmp_path, tmp_path)
    held_out = {e.path.relative_to(tmp_path).as_posix() for e in job.examples if e.side != "train"}
    with (out / TRUTH).open(newline="") as file:
        assert {row["path"] for row in csv.DictReader(file)} == held_out
    count, head = damage_data.write_sources(config, tmp_path, str(model), "severity", out)
    assert (count, head) == (8, "severity")
    assert tomllib.loads((out / NETWORKS).read_text())["colours_severity"]["classes"] == [4, 2]


def test_the_car_model_pipeline_writes_sources(tmp_path: Path) -> None:
    model = save_car_model(tmp_path / "model")
    classes = ("Audi TT Coupe 2012", "BMW M3 Coupe 2012")
    save_classes(tmp_path / "tree", classes, 7)
    text = '[[sets]]\nfolder = "tree"\nlevels = ["model"]\n'
    config = write_config(tmp_path / "car.toml", text)
    count, head = car_data.write_sources(config, tmp_path, str(model), None, tmp_path / "out")
    assert (count, head) == (4, "model")
    (spec,) = load_specs(tmp_path / "out" / NETWORKS).values()
    assert open_classifier(spec).classes == 4
