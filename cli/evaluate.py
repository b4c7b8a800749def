"""Measure predictors on held-out images beside trivial gates (extra `label`; pictures: `report`).

One predictor on one label table, printed, or a study of several (--study STUDY.toml, see
docs/evaluation.md). With --out DIR there come evaluation.md, evaluation.json and pictures; a study
of detectors needs the extra `train`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.progress import Progress
from utility_gate.errors import ConfigError
from utility_gate.files import whole_file
from utility_gate.predictor import EMBEDDED, is_embedded

if TYPE_CHECKING:
    from utility_gate.evaluation.detection import ObjectTruth
    from utility_gate.evaluation.results import Results
    from utility_gate.evaluation.study import Study

_ONE = ("labels", "images", "observations", "reference", "known")
"""Options that say what a study says in its file."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `utility-gate evaluate`."""
    parser.add_argument("--study", type=Path, metavar="STUDY.toml", help="what on what")
    parser.add_argument("--predictor", metavar="DIR", help="default: the embedded one")
    parser.add_argument("--labels", type=Path, metavar="FILE.parquet")
    parser.add_argument("--images", type=Path, metavar="DIR")
    parser.add_argument("--observations", type=Path, nargs="+", metavar="FILE.parquet")
    parser.add_argument("--reference", metavar="NETWORK", help="classifier of trivial gate (b)")
    parser.add_argument(
        "--known",
        type=Path,
        metavar="FILE.parquet",
        help="choose the trivial gates' thresholds on its training side, if --labels has none",
    )
    parser.add_argument(
        "--brisque", action="store_true", help="trivial gate (c), of the extra brisque"
    )
    parser.add_argument("--json", action="store_true", help="JSON instead of Markdown")
    parser.add_argument(
        "--record", action="store_true", help="write the result into the card's metrics"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="tables, JSON and pictures")
    parser.add_argument("--threads", type=int, metavar="N", help="copies looked at side by side")


def run(options: argparse.Namespace) -> int:
    """Evaluate, write and print."""
    from utility_gate.evaluation.job import run as run_study
    from utility_gate.evaluation.page import finite, to_json
    from utility_gate.evaluation.tables import evaluation_markdown

    _check(options)
    draw = _open_pictures(options)
    study = _read_study(options)
    with Progress("sources") as progress:
        results = run_study(study, _read_truths(study), threads=options.threads, progress=progress)
    page = _write(results, options.out, draw) if options.out is not None else ""
    if options.study is not None:
        print(to_json(results) if options.json else page, end="")
        return 0
    evaluation = results.rows[0].evaluation
    table, text = finite(asdict(evaluation)), evaluation_markdown(evaluation)
    if options.record:
        _record(Path(options.predictor), {**table, "table": text})
    print(json.dumps(table, indent=2) if options.json else text)
    return 0


def _check(options: argparse.Namespace) -> None:
    """Refuse options that do not go together.

    Raises:
        ConfigError: naming them.
    """
    if options.study is not None:
        given = [f"--{name}" for name in (*_ONE, "predictor") if getattr(options, name)]
        given += [f"--{name}" for name in ("brisque", "record") if getattr(options, name)]
        if given:
            raise ConfigError(f"expected --study without {', '.join(given)}: its file says that")
        if options.out is None:
            raise ConfigError("expected --out DIR with --study, got none")
    elif options.labels is None or options.images is None:
        raise ConfigError("expected --labels and --images, or --study")
    if (options.observations is None) != (options.reference is None):
        raise ConfigError("expected --observations and --reference together")
    if options.record and is_embedded(options.predictor or EMBEDDED):
        raise ConfigError("expected --predictor DIR with --record, got one that ships")
    if options.threads is not None and options.threads < 1:
        raise ConfigError(f"expected --threads of 1 or more, got {options.threads}")
    out: Path | None = options.out
    if out is not None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"expected an empty or new folder for --out, got {out}")


def _open_pictures(options: argparse.Namespace) -> Callable[[Results, Path], list[str]]:
    """What draws; who lacks matplotlib hears it before the work."""
    if options.out is None:
        return lambda _, __: []
    from utility_gate.evaluation.figures import draw_all

    return draw_all


def _read_study(options: argparse.Namespace) -> Study:
    """The study of the file, or that of one predictor that the options describe."""
    from utility_gate.evaluation.study import GatesPart, PredictorPart, Study, load_study
    from utility_gate.sides import task_of

    if options.study is not None:
        return load_study(options.study)
    return Study(
        images=(options.images,),
        gates=GatesPart(
            labels=() if options.known is None else (options.known,),
            reference=options.reference,
            reference_observations=tuple(options.observations or ()),
            brisque=options.brisque,
        ),
        predictor=(
            PredictorPart(
                name="predictor",
                checkpoint=options.predictor or EMBEDDED,
                labels=options.labels,
                trained_on=task_of(options.labels),
            ),
        ),
    )


def _read_truths(study: Study) -> dict[str, ObjectTruth]:
    """The objects for every unseen table that names a file of truth."""
    return {
        part.name: read_objects(part.truth, part.observations)
        for part in study.unseen
        if part.truth is not None
    }


def read_objects(truth: Path, observations: Path) -> ObjectTruth:
    """The objects of a COCO file, and how the detectors of a table of observations number them.

    Raises:
        TableError: if one of them cannot be read.
    """
    from labelers.truth import read_coco
    from utility_gate.evaluation.detection import Objects, ObjectTruth
    from utility_gate.tables import read_metadata

    known = read_coco(truth)
    networks: Mapping[str, Any] = read_metadata(observations).get("networks", {})
    return ObjectTruth(
        sources={
            row.path: Objects(
                row.boxes or (), tuple(known.names[number] for number in row.categories or ())
            )
            for row in known.rows
        },
        classes={name: _numbering(entry) for name, entry in networks.items()},
    )


def _numbering(entry: Mapping[str, Any]) -> dict[int, str]:
    """A detector's class numbers and names, from what its table says of it: a list of names, or
    COCO's, as torchvision has them."""
    categories = entry.get("categories", "coco")
    if isinstance(categories, list):
        return dict(enumerate(categories))
    from labelers.torchvision_networks import coco_categories

    return coco_categories()


def _write(results: Results, out: Path, draw: Callable[[Results, Path], list[str]]) -> str:
    """Pictures, tables and JSON into a folder; the page."""
    from utility_gate.evaluation.page import to_json, to_markdown

    page = to_markdown(results, draw(results, out))
    for name, text in (("evaluation.md", page), ("evaluation.json", to_json(results))):
        with whole_file(out / name) as partial:
            partial.write_text(text, encoding="utf-8")
    return page


def _record(folder: Path, metrics: dict[str, Any]) -> None:
    from utility_gate.checkpoint import Card, load_card, save_card

    card, _ = load_card(folder, Card)
    save_card(card.model_copy(update={"metrics": metrics}), folder)
