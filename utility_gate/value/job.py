"""Gate and pipeline look at the same degraded copies, one after the other."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from utility_gate.degrade import DEFAULT_QUALITIES, ladder
from utility_gate.errors import ConfigError, ImageError, TableError
from utility_gate.files import digest_bytes, read_source, whole_file
from utility_gate.images import DecodeLimits, Pixels, decode
from utility_gate.measure import estimate_jpeg_quality
from utility_gate.split import split_of, unit_hash
from utility_gate.types import Decision, Verdict
from utility_gate.value.arithmetic import Trials

Side = Literal["test", "train", "all"]
Review = Literal["pass", "stop"]
Progress = Callable[[int, int], None]
Clock = Callable[[], float]

_WARM_UP = 5
"""Looks of each before the first one that counts."""


@dataclass(frozen=True, slots=True)
class Photograph:
    """One labelled image file; those of one `group` are copies of one original."""

    path: Path
    label: str
    group: str


@dataclass(frozen=True, slots=True)
class Decided:
    """What a pipeline says of one image, and the milliseconds that it took.

    Raises:
        ValueError: unless the time is positive.
    """

    label: str
    milliseconds: float

    def __post_init__(self) -> None:
        if not self.milliseconds > 0:
            raise ValueError(f"expected positive milliseconds, got {self.milliseconds!r}")


class Pipeline(Protocol):
    """What stands behind the gate."""

    @property
    def name(self) -> str:
        """For tables."""

    def decide(self, image: bytes) -> Decided:
        """The class of an encoded image."""


@dataclass(frozen=True, slots=True)
class Judged:
    """One copy: what was true, what was said."""

    path: str
    quality: int
    label: str
    decided: str
    utility: float
    judgement: Decision
    passed: bool
    file_quality: int
    gate_ms: float
    pipeline_ms: float


def read_labels(
    table: Path, images: Path, columns: Sequence[str] = ("label", "class_index")
) -> list[Photograph]:
    """Photographs of a CSV table with the column `path` (below `images`); their labels are in the
    first of `columns` that it has. Each is an original of its own.

    Raises:
        TableError: if the table, a column or an image is missing, or an image stands twice.
    """
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            header = list(reader.fieldnames or ())
            rows = [row for row in reader if any(row.values())]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TableError(f"{table}: expected a CSV table of labels: {error}") from error
    wanted = next((column for column in columns if column in header), None)
    if wanted is None or "path" not in header or not rows:
        raise TableError(
            f"{table}: expected rows with the columns path and {' or '.join(columns)}, got "
            f"{len(rows)} with {', '.join(header)}"
        )
    paths = [images / (row["path"] or "") for row in rows]
    if len(set(paths)) < len(paths):
        raise TableError(f"{table}: expected each image once")
    absent = next((path for path in paths if not path.is_file()), None)
    if absent is not None:
        raise TableError(f"{table}: there is no image {absent}")
    return [
        Photograph(path, row[wanted] or "", str(path))
        for path, row in zip(paths, rows, strict=True)
    ]


def choose(
    photographs: Sequence[Photograph], side: Side = "test", limit: int = 0
) -> list[Photograph]:
    """Those on one side of the predictors' split ("test": never trained on), and of them `limit`
    (0: all), chosen by their content and so always the same.

    Raises:
        TableError: if none is left or one cannot be read.
    """
    kept = []
    for photograph in photographs:
        try:
            digest = digest_bytes(read_source(photograph.path))
        except OSError as error:
            raise TableError(f"{photograph.path}: expected an image: {error}") from error
        if side in ("all", split_of(digest)):
            kept.append((unit_hash("value", digest), photograph))
    kept.sort(key=lambda pair: (pair[0], pair[1].path))
    if not kept:
        raise TableError(f"expected photographs on the side {side}, got none of {len(photographs)}")
    return [photograph for _, photograph in kept[: limit or None]]


def run(
    photographs: Sequence[Photograph],
    judge: Callable[[bytes], Verdict],
    pipeline: Pipeline,
    qualities: Sequence[int] = DEFAULT_QUALITIES,
    *,
    review: Review = "pass",
    limits: DecodeLimits | None = None,
    clock: Clock = time.perf_counter,
    progress: Progress = lambda _, __: None,
) -> list[Judged]:
    """Every photograph at every JPEG quality, past gate and pipeline in turns, the gate first at
    every other copy, in this thread. Images between the gate's thresholds "pass" or "stop";
    `clock`, in seconds, times the gate.

    Raises:
        TableError: if a photograph cannot be decoded.
        ConfigError: if the gate does not judge (mode OFF), or for no qualities.
        UtilityGateError: what gate and pipeline raise.
    """
    if not photographs or not qualities:
        raise ConfigError("expected at least one photograph and one quality, got none")
    steps = ladder(tuple(qualities))
    stopped = {Decision.NON_USEFUL} if review == "pass" else {Decision.NON_USEFUL, Decision.REVIEW}
    judged: list[Judged] = []
    for number, photograph in enumerate(photographs, 1):
        pixels = _decode(photograph, limits)
        for step in steps:
            data = step.apply(pixels)
            if not judged:
                for _ in range(_WARM_UP):
                    judge(data)
                    pipeline.decide(data)
            gate_first = len(judged) % 2 == 0
            verdict, gate_ms, decided = _look(judge, pipeline, data, clock, gate_first=gate_first)
            judgement = verdict.judgement
            if verdict.utility is None or judgement is None:
                raise ConfigError(
                    f"expected a gate that judges, got mode {verdict.mode}: {verdict.note}"
                )
            judged.append(
                Judged(
                    path=str(photograph.path),
                    quality=step.quality,
                    label=photograph.label,
                    decided=decided.label,
                    utility=verdict.utility,
                    judgement=judgement,
                    passed=judgement not in stopped,
                    file_quality=_file_quality(data),
                    gate_ms=gate_ms,
                    pipeline_ms=decided.milliseconds,
                )
            )
        progress(number, len(photographs))
    return judged


def _decode(photograph: Photograph, limits: DecodeLimits | None) -> Pixels:
    try:
        return decode(read_source(photograph.path), limits).pixels
    except (OSError, ImageError) as error:
        raise TableError(f"{photograph.path}: expected an image: {error}") from error


def _look(
    judge: Callable[[bytes], Verdict],
    pipeline: Pipeline,
    data: bytes,
    clock: Clock,
    *,
    gate_first: bool,
) -> tuple[Verdict, float, Decided]:
    """What both say, and the gate's milliseconds. Whoever is second finds the caches cold of its
    own network, so they take turns."""
    before = None if gate_first else pipeline.decide(data)
    started = clock()
    verdict = judge(data)
    gate_ms = 1000 * (clock() - started)
    return verdict, gate_ms, before or pipeline.decide(data)


def _file_quality(data: bytes) -> int:
    table = decode(data, scale_to=1).luma_quantization
    return 100 if table is None else estimate_jpeg_quality(table)


def to_trials(judged: Sequence[Judged], photographs: Sequence[Photograph]) -> Trials:
    """What was judged, as arrays; copies of one original's photographs have one source number."""
    group = {str(photograph.path): photograph.group for photograph in photographs}
    numbers: dict[str, int] = {}
    for one in judged:
        numbers.setdefault(group[one.path], len(numbers))

    def column(name: str, kind: Any) -> npt.NDArray[Any]:
        return np.array([getattr(one, name) for one in judged], kind)

    return Trials(
        sources=np.array([numbers[group[one.path]] for one in judged], np.int64),
        qualities=column("quality", np.int64),
        file_qualities=column("file_quality", np.float64),
        correct=np.array([one.decided == one.label for one in judged], np.bool_),
        passed=column("passed", np.bool_),
        utilities=column("utility", np.float64),
        gate_ms=column("gate_ms", np.float64),
        pipeline_ms=column("pipeline_ms", np.float64),
    )


def write_judged(path: Path, judged: Sequence[Judged], images: Path) -> None:
    """A CSV table with a row for each copy, its path below `images` where it lies there."""
    names = [field.name for field in fields(Judged)]
    with whole_file(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        for one in judged:
            values = {name: getattr(one, name) for name in names}
            if Path(one.path).is_relative_to(images):
                values["path"] = Path(one.path).relative_to(images).as_posix()
            writer.writerow(values.values())
