"""Measure what the gate is worth in front of a pipeline (extra `report`).

Labelled photographs are compressed at every quality of a ladder; gate and pipeline look at each
copy in turns, in one thread. DIR gets value.md (accuracy and cost with and without the gate, error
against discard, break-even), value.json, value.png and copies.csv, a row for each copy. By default
only photographs are taken that no predictor was trained on (--side test).
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from cli.judge import add_judge_arguments, open_judge
from cli.progress import Progress
from cli.value_pipelines import TimedPipeline, add_pipeline_arguments, open_pipeline
from utility_gate.degrade import DEFAULT_QUALITIES, ladder
from utility_gate.errors import ConfigError
from utility_gate.files import whole_file
from utility_gate.types import Verdict
from utility_gate.value.arithmetic import weigh
from utility_gate.value.job import Judged, Photograph, choose, read_labels, to_trials, write_judged
from utility_gate.value.job import run as run_job
from utility_gate.value.page import Setting, to_json, to_markdown


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `utility-gate value`."""
    parser.add_argument(
        "--truth", type=Path, required=True, metavar="FILE.csv",
        help="columns path and class_index (classifier), or path and label or name",
    )  # fmt: skip
    parser.add_argument("--images", type=Path, required=True, metavar="DIR")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument(
        "--side", choices=["test", "train", "all"], default="test", help="of the predictors' split"
    )
    parser.add_argument("--limit", type=int, default=0, metavar="N", help="photographs; 0: all")
    parser.add_argument(
        "--qualities", type=_qualities, default=DEFAULT_QUALITIES, metavar="Q,Q,..."
    )
    parser.add_argument(
        "--review", choices=["pass", "stop"], default="pass", help="images between the thresholds"
    )
    add_judge_arguments(parser)
    add_pipeline_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Measure, write and print the tables."""
    from utility_gate.value.figure import draw  # who lacks matplotlib hears it before the work

    out: Path = options.out
    if options.limit < 0:
        raise ConfigError(f"expected --limit of 0 or more, got {options.limit}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"expected an empty or new folder for --out, got {out}")
    # CPU time, where all is computed in this thread: what else the machine does is not in it.
    alone = options.target is None and options.pipeline_target is None
    clock = time.thread_time if alone else time.perf_counter
    with closing(replace(open_pipeline(options), clock=clock)) as pipeline:
        photographs = choose(
            read_labels(options.truth, options.images, pipeline.columns),
            options.side,
            options.limit,
        )
        judged, gate = _judge_all(options, photographs, pipeline)
    worth = weigh(to_trials(judged, photographs))
    setting = Setting(
        gate=gate,
        pipeline=pipeline.name,
        review=options.review,
        cores=os.cpu_count() or 1,
        data=f"{options.truth.name}, side {options.side}",
        qualities=options.qualities,
        time="CPU time" if alone else "time",
    )
    page = to_markdown(worth, setting)
    write_judged(out / "copies.csv", judged, options.images)
    for name, text in (("value.md", page), ("value.json", to_json(worth, setting))):
        with whole_file(out / name) as partial:
            partial.write_text(text, encoding="utf-8")
    draw(worth, setting, out / "value.png")
    print(page, end="")
    return 0


def _judge_all(
    options: argparse.Namespace, photographs: Sequence[Photograph], pipeline: TimedPipeline
) -> tuple[list[Judged], str]:
    """All copies, and the name of the predictor behind the gate."""
    judge, close = open_judge(options)
    names: list[str] = []

    def named(image: bytes) -> Verdict:
        verdict = judge(image)
        if not names and verdict.predictor is not None:
            names.append(f"{verdict.predictor.name} {verdict.predictor.version}")
        return verdict

    try:
        with Progress("photographs") as progress:
            judged = run_job(
                photographs, named, pipeline, options.qualities, review=options.review,
                clock=pipeline.clock, progress=progress,
            )  # fmt: skip
    finally:
        close()
    return judged, "".join(names)


def _qualities(text: str) -> tuple[int, ...]:
    try:
        return tuple(jpeg.quality for jpeg in ladder(tuple(int(q) for q in text.split(","))))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected qualities such as 90,30,5: {error}") from error
