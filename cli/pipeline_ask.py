"""`utility-gate pipeline ask`: a pipeline's answers on image files, as a table or as JSON.

Exit code 1 if a file could not be used; the others are still answered.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipelines.answers import HeadAnswer, say
from pipelines.car_model.pipeline import CarAnswer, CarModelPipeline, FoundCar
from pipelines.damage.pipeline import Assessment, DamagePipeline
from utility_gate.errors import UtilityGateError
from utility_gate.predictor import EMBEDDED
from utility_gate.types import PredictorInfo

_ROW = "{:<32} {:<10} {}"


@dataclass(frozen=True, slots=True)
class Said:
    """A pipeline's answer on one image: in a word, as lines of a table, as JSON, and the overlays
    (PNG) by name."""

    word: str
    lines: Sequence[str]
    record: Mapping[str, Any]
    overlays: Mapping[str, bytes]


Ask = Callable[[bytes], Said]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `utility-gate pipeline ask`."""
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="JPEG, PNG or WebP")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--model", default=EMBEDDED, metavar="DIR", help="networks to use")
    parser.add_argument(
        "--overlay", type=Path, metavar="DIR", help="write PNGs here of where the network looked"
    )
    parser.add_argument(
        "--top-k", type=int, default=3, metavar="K", help="models to name (car_model); default 3"
    )


def run(options: argparse.Namespace) -> int:
    """Answer and print."""
    ask = _open(options)
    failed = False
    if not options.json:
        print(_ROW.format("photo", "answer", "in words"))
    for number, path in enumerate(options.images, start=1):
        try:
            said = ask(path.read_bytes())
        except (OSError, UtilityGateError) as error:
            failed = True
            _print_error(path, error, as_json=options.json)
            continue
        if options.json:
            print(json.dumps({"path": str(path), **said.record}), flush=True)
        else:
            _print_rows(path, said)
        if options.overlay is not None:
            _write_overlays(options.overlay, f"{number}-{path.stem}", said.overlays)
    return 1 if failed else 0


def _open(options: argparse.Namespace) -> Ask:
    with_maps = options.overlay is not None
    if options.name == "damage":
        damage = DamagePipeline.load(options.model)
        return lambda data: of_damage(damage.assess(data, with_maps=with_maps))
    cars = CarModelPipeline.load(options.model)
    return lambda data: of_car(cars.identify(data, with_maps=with_maps), options.top_k)


def of_damage(found: Assessment) -> Said:
    """What the damage pipeline says."""
    lines = [f"whole photograph: {say(found.whole)}"]
    lines += [
        f"{region.label} ({region.score:.2f}) at {_corners(region.box)}: {say(region.heads)}"
        for region in found.regions
    ]
    record = {
        "outcome": found.outcome,
        "text": found.text,
        "regions": [
            {
                "box": _record_box(region.box),
                "score": round(region.score, 4),
                "detector_class": region.label,
                "crop": region.crop,
                "heads": _record(region.heads),
            }
            for region in found.regions
        ],
        "whole": _record(found.whole),
        "image": asdict(found.image),
        "detector": _record_model(found.detector),
        "classifier": _record_model(found.classifier),
    }
    overlays = {f"whole-{head.head}": head.overlay for head in found.whole}
    for number, region in enumerate(found.regions, start=1):
        overlays |= {f"region-{number}-{head.head}": head.overlay for head in region.heads}
    return Said(found.outcome, lines, record, overlays)


def of_car(answer: CarAnswer, top_k: int) -> Said:
    """What the car-model pipeline says."""
    told = answer.identification
    best = told.candidates[: max(1, top_k)]
    lines = [told.text, *(f"{car.name} ({car.probability:.2f})" for car in best)]
    if answer.car is not None:
        count = "" if answer.cars == 1 else f", the largest of {answer.cars} cars"
        lines[0] += f", at {_corners(answer.car.box)}{count}"
    record = {
        "level": told.level,
        "text": told.text,
        "make": told.make[0],
        "make_probability": round(told.make[1], 6),
        "candidates": [
            {"name": car.name, **asdict(car.car), "probability": round(car.probability, 6)}
            for car in best
        ],
        "no_car_probability": round(told.no_car, 6),
        "car": _record_car(answer.car),
        "cars": answer.cars,
        "image": asdict(answer.image),
        "detector": _record_model(answer.detector),
        "classifier": _record_model(answer.classifier),
    }
    return Said(told.level, lines, record, {"model": answer.overlay})


def _record_car(car: FoundCar | None) -> dict[str, Any] | None:
    if car is None:
        return None
    return {"box": _record_box(car.box), "score": round(car.score, 4), "crop": car.crop}


def _record_model(model: PredictorInfo | None) -> str | None:
    return f"{model.name} {model.version}" if model else None


def _record_box(box: Sequence[float]) -> list[float]:
    return [round(edge, 1) for edge in box]


def _corners(box: Sequence[float]) -> str:
    left, top, right, bottom = (round(edge) for edge in box)
    return f"{left},{top} to {right},{bottom}"


def _record(heads: Sequence[HeadAnswer]) -> dict[str, dict[str, float]]:
    return {head.head: {name: round(p, 6) for name, p in head.classes} for head in heads}


def _print_rows(path: Path, said: Said) -> None:
    name = str(path)
    name = name if len(name) <= 32 else "..." + name[-29:]
    word = said.word
    for line in said.lines:
        print(_ROW.format(name, word, line), flush=True)
        name = word = ""


def _print_error(path: Path, error: Exception, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"path": str(path), "error": str(error)}), flush=True)
    else:
        print(f"{path}: error: {error}", file=sys.stderr)


def _write_overlays(folder: Path, stem: str, overlays: Mapping[str, bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, png in overlays.items():
        plain = re.sub(r"[^\w-]", "_", name)
        (folder / f"{stem}-{plain}.png").write_bytes(png)
