"""Labelled images, from CSV tables or folder trees, and on which side each of them is."""

from __future__ import annotations

import csv
import re
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from PIL import Image
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from pipelines.heads import Head
from utility_gate.errors import ConfigError, ImageError, TableError
from utility_gate.files import find_images, read_source
from utility_gate.images import decode
from utility_gate.split import unit_hash

Side = Literal["train", "validation", "test"]
SIDES: tuple[Side, ...] = ("train", "validation", "test")
FRACTIONS = {"train": 0.70, "validation": 0.15, "test": 0.15}
"""Shares of the sides, of each class (seed 004, section IV)."""

_SIDE_NAMES: dict[str, Side] = {
    "train": "train", "val": "validation", "valid": "validation", "validation": "validation",
    "test": "test",
}  # fmt: skip

Stratum = tuple[tuple[str, tuple[str, ...]], ...]

ALIKE = 12
"""Up to this many of the 128 bits of two difference hashes differ if one picture is the other,
encoded anew, resized or with a watermark; of the damage sets' different pictures 14 do, or more."""

LABELS_APART = ";"
"""What separates the labels of a multi-label head in a table's cell."""


def _compiles(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"expected a regular expression, got {pattern!r}: {error}") from error
    return pattern


def _has_group(pattern: str) -> str:
    if pattern and not re.compile(pattern).groups:
        raise ValueError(f"expected a regular expression with a group, got {pattern!r}")
    return pattern


Pattern = Annotated[str, AfterValidator(_compiles)]
GroupPattern = Annotated[Pattern, AfterValidator(_has_group)]


@dataclass(frozen=True, slots=True)
class Example:
    """One labelled image.

    `labels` holds, by head, the names of the true classes (one, or any number for a multi-label
    head); a head that is missing is not known. Images of one `group` (copies of one original) are
    never on two sides.
    """

    path: Path
    labels: Mapping[str, tuple[str, ...]]
    group: str
    side: Side | None = None


class ImageSet(BaseModel):
    """One TOML table `[[sets]]`: labelled images below the data folder.

    Either `table`, a CSV with the images' paths (relative to it) in the column `path` and labels in
    the columns that `heads` names by head, or `folder`, a tree whose folder levels are the labels
    of the heads in `levels`. `constant` gives all images a label, `rename` renames classes. `split`
    is a column of train, val and test. `group` is a regular expression on the file's name whose
    first group tells copies of one original; without it, images that look the same (by their
    difference hashes) belong together. Rows of a table are left out where a column of `without`
    matches its regular expression. `limit` takes that many images, chosen by the hashes of their
    paths below the data folder.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    table: str = ""
    folder: str = ""
    path: str = "path"
    heads: dict[str, str] = {}
    levels: tuple[str, ...] = ()
    constant: dict[str, str] = {}
    rename: dict[str, str] = {}
    split: str = ""
    group: GroupPattern = ""
    without: dict[str, Pattern] = {}
    limit: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _one_source(self) -> ImageSet:
        if bool(self.table) == bool(self.folder):
            raise ValueError("expected either table or folder")
        return self


class ImageSets(BaseModel):
    """What a TOML file says of its images: `[[sets]]`, and, at its head, `alike`: images of which
    at most so many of the 128 bits of the difference hashes differ are copies of one original (see
    `ALIKE`)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sets: tuple[ImageSet, ...]
    alike: int = Field(default=0, ge=0, le=128, strict=True)


def load_sets(path: Path) -> ImageSets:
    """The `[[sets]]` and `alike` of a TOML file.

    Raises:
        ConfigError: if it cannot be read, or a set or `alike` is not valid.
    """
    try:
        tables = tomllib.loads(path.read_text())
        sets = tuple(ImageSet(**table) for table in tables["sets"])
        return ImageSets(sets=sets, **{k: v for k, v in tables.items() if k == "alike"})
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{path}: expected [[sets]] of labelled images: {error}") from error


def load_examples(path: Path, data: Path) -> list[Example]:
    """Every labelled image of a TOML file; `load_sets`, then `read_examples`.

    Raises:
        ConfigError, TableError: if the file or the images cannot be used.
    """
    its = load_sets(path)
    return read_examples(its.sets, data, alike=its.alike)


def read_examples(sets: Sequence[ImageSet], data: Path, *, alike: int = 0) -> list[Example]:
    """Every labelled image of the sets, in the order of their paths; `alike` as `ImageSets`.

    Raises:
        TableError: if a table, a column or an image is missing, or there are no images at all.
    """
    examples: list[Example] = []
    for entry in sets:
        found = _from_table(entry, data) if entry.table else _from_folder(entry, data)
        kept = sorted(found, key=lambda e: unit_hash("limit", e.path.relative_to(data).as_posix()))
        examples += kept[: entry.limit or None]
    if not examples:
        raise TableError(f"{data}: expected labelled images, found none")
    return sorted(_with_groups(examples, alike), key=lambda example: example.path)


def _from_table(entry: ImageSet, data: Path) -> list[Example]:
    table = data / entry.table
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TableError(f"{table}: expected a CSV table: {error}") from error
    wanted = {
        entry.path, *entry.heads.values(), *entry.without, *filter(None, [entry.split])
    }  # fmt: skip
    missing = wanted - set(rows[0] if rows else ())
    if missing:
        raise TableError(f"{table}: expected columns {sorted(wanted)}, missing {sorted(missing)}")
    return [
        _from_row(entry, data, number, row)
        for number, row in enumerate(rows, 2)
        if not any(re.search(regex, row[column] or "") for column, regex in entry.without.items())
    ]


def _from_row(entry: ImageSet, data: Path, number: int, row: Mapping[str, str]) -> Example:
    table = data / entry.table
    path = table.parent / (row[entry.path] or "")
    if not path.is_file() or not path.is_relative_to(data):
        raise TableError(f"{table}, line {number}: there is no image {path} below {data}")
    labels = {
        head: tuple(entry.rename.get(name, name) for name in row[column].split(LABELS_APART))
        for head, column in entry.heads.items()
        if row[column]
    }
    labels |= {head: (name,) for head, name in entry.constant.items()}
    if not entry.split:
        return Example(path, labels, _group(entry, path))
    side = _SIDE_NAMES.get(row[entry.split])
    if side is None:
        raise TableError(
            f"{table}, line {number}: expected train, val or test, got {row[entry.split]!r}"
        )
    return Example(path, labels, _group(entry, path), side)


def _from_folder(entry: ImageSet, data: Path) -> list[Example]:
    root = data / entry.folder
    if not root.is_dir():
        raise TableError(f"{root}: expected a folder of images, found none")
    examples = []
    for path in find_images([root]):
        folders = path.relative_to(root).parts[:-1]
        if len(folders) < len(entry.levels):
            raise TableError(f"{path}: expected it below {'/'.join(entry.levels)} in {root}")
        labels = {
            head: (entry.rename.get(name, name),)
            for head, name in zip(entry.levels, folders, strict=False)
        }
        labels |= {head: (name,) for head, name in entry.constant.items()}
        examples.append(Example(path, labels, _group(entry, path)))
    return examples


def _group(entry: ImageSet, path: Path) -> str:
    if not entry.group:
        return ""
    match = re.search(entry.group, path.name)
    return match[1] if match else path.name


def _with_groups(examples: list[Example], alike: int) -> list[Example]:
    lone = [example for example in examples if not example.group]
    with ThreadPoolExecutor() as pool:
        hashes = list(pool.map(lambda example: _difference_hash(example.path), lone))
    first = _first_alike(sorted(set(hashes)), alike)
    group = {example.path: first[value] for example, value in zip(lone, hashes, strict=True)}
    return [
        example if example.group else replace(example, group=group[example.path])
        for example in examples
    ]


def _difference_hash(path: Path) -> str:
    """128 bits: which of neighbouring cells of a 9x9 thumbnail is brighter, across and down."""
    try:
        pixels = decode(read_source(path), scale_to=64).pixels
    except (OSError, ImageError) as error:
        raise TableError(f"{path}: expected an image: {error}") from error
    small = Image.fromarray(pixels).convert("L").resize((9, 9), Image.Resampling.BOX)
    luma = np.asarray(small).astype(int)
    bits = np.concatenate([(np.diff(luma[:-1]) > 0).ravel(), (np.diff(luma.T[:-1]) > 0).ravel()])
    return np.packbits(bits).tobytes().hex()


def _first_alike(hashes: Sequence[str], alike: int) -> dict[str, str]:
    """Each hash to the first of those that it is alike, itself or by way of others."""
    if not alike or not hashes:
        return dict(zip(hashes, hashes, strict=True))
    packed = np.frombuffer(bytes.fromhex("".join(hashes)), np.uint8).reshape(len(hashes), -1)
    signs = np.unpackbits(packed, axis=1).astype(np.float32) * 2 - 1
    first = list(range(len(hashes)))

    def find(i: int) -> int:
        while first[i] != i:
            i = first[i]
        return i

    for start in range(0, len(hashes), 1024):
        differ = (signs.shape[1] - signs[start : start + 1024] @ signs.T) / 2
        for i, j in np.argwhere(differ <= alike):
            low, high = sorted((find(start + int(i)), find(int(j))))
            first[high] = low
    return {value: hashes[find(i)] for i, value in enumerate(hashes)}


def assign_sides(examples: Sequence[Example]) -> list[Example]:
    """Every example on a side: those of a set with a split of its own where it says (a group goes
    to the most withheld of its members' sides); of the others 70, 15 and 15 % of the groups of each
    class (seed 004, section IV). Decided by the groups' names alone.
    """
    given: dict[str, Side] = {}
    members = _by_group(examples)
    for group, its in members.items():
        sides = [example.side for example in its if example.side is not None]
        if sides:
            given[group] = max(sides, key=SIDES.index)
    for groups in _strata({group: members[group] for group in members if group not in given}):
        given |= _cut(groups)
    return [replace(example, side=given[example.group]) for example in examples]


def _by_group(examples: Iterable[Example]) -> dict[str, list[Example]]:
    members: dict[str, list[Example]] = defaultdict(list)
    for example in examples:
        members[example.group].append(example)
    return members


def _strata(members: Mapping[str, Sequence[Example]]) -> list[list[str]]:
    """The groups of each class, in the order of their names' hashes; the class of a group is that
    of its first image."""
    strata: dict[Stratum, list[str]] = defaultdict(list)
    for group, its in members.items():
        _, stratum = min((example.path, _stratum(example)) for example in its)
        strata[stratum].append(group)
    return [
        sorted(groups, key=lambda group: unit_hash("side", group)) for groups in strata.values()
    ]


def _stratum(example: Example) -> Stratum:
    return tuple(sorted(example.labels.items()))


def _cut(ordered: Sequence[str]) -> dict[str, Side]:
    count = len(ordered)
    test = round(FRACTIONS["test"] * count)
    validation = round(FRACTIONS["validation"] * count)
    return {
        group: "test" if i < test else "validation" if i < test + validation else "train"
        for i, group in enumerate(ordered)
    }


def fold_sides(examples: Sequence[Example], fold: int, folds: int) -> list[Example]:
    """Every example for one fold of a cross-validation: the fold's groups are the test side, an
    eighth of the others of each class the validation side.

    Raises:
        ConfigError: unless 0 <= fold < folds and folds >= 2.
    """
    if not 0 <= fold < folds or folds < 2:
        raise ConfigError(f"expected a fold below 2 or more folds, got {fold} of {folds}")
    sides: dict[str, Side] = {}
    for groups in _strata(_by_group(examples)):
        others = [group for i, group in enumerate(groups) if i % folds != fold]
        for i, group in enumerate(others):
            sides[group] = "validation" if i % 8 == 3 else "train"
        sides |= dict.fromkeys(groups[fold::folds], "test")
    return [replace(example, side=sides[example.group]) for example in examples]


def on_side(examples: Iterable[Example], side: Side) -> list[Example]:
    """The examples of one side."""
    return [example for example in examples if example.side == side]


def open_head(
    name: str, examples: Sequence[Example], minimum: int = 1
) -> tuple[Head, list[Example]]:
    """A head with the classes that occur, sorted, and the examples that it knows: classes of fewer
    than `minimum` images are left out, with their images.

    Raises:
        TableError: if fewer than two classes remain.
    """
    counts = Counter(label for example in examples for label in example.labels.get(name, ()))
    classes = tuple(sorted(label for label, count in counts.items() if count >= minimum))
    if len(classes) < 2:
        raise TableError(
            f"head {name}: expected two classes of {minimum} or more images, got {len(classes)} of "
            f"{len(counts)}"
        )
    known = set(classes)
    kept = [example for example in examples if known.issuperset(example.labels.get(name, ()))]
    return Head(name, classes), kept


def check_labels(examples: Iterable[Example], heads: Sequence[Head]) -> None:
    """Raises:
    TableError: if an example has a class that its head does not know.
    """
    for example in examples:
        for head in heads:
            for label in example.labels.get(head.name, ()):
                try:
                    head.index(label)
                except ValueError as error:
                    raise TableError(f"{example.path}: {error}") from error


def check_sides(train: Iterable[Example], test: Iterable[Example], heads: Sequence[Head]) -> None:
    """Raises:
    TableError: if a head that chooses one class has no labelled image on one of the sides.
    """
    for side, examples in (("training", list(train)), ("test", list(test))):
        for head in heads:
            if not head.multi_label and not any(e.labels.get(head.name) for e in examples):
                raise TableError(
                    f"head {head.name}: expected labelled images on the {side} side, found none"
                )
