"""Degrade pristine images, let networks look at the copies, write observations and labels.

--images is the folder of pristine images. --truth is a CSV with the columns path and class_index
(classification) or a COCO instances file (detection); there is none where the configuration says
reference = "pristine". --networks is a TOML file that describes ONNX networks. What is done with
them stands in --config. A run that was stopped goes on where it stood when it is started again.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cli.progress import Progress

if TYPE_CHECKING:
    from labelers.job import LabelJob


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `utility-gate label`."""
    parser.add_argument("--config", type=Path, required=True, metavar="FILE.toml")
    parser.add_argument("--images", type=Path, required=True, metavar="DIR")
    parser.add_argument("--truth", type=Path, metavar="FILE")
    parser.add_argument("--networks", type=Path, metavar="FILE.toml")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument(
        "--engine", choices=["local", "ray"], default="local",
        help="processes on this machine, or actors on a Ray cluster",
    )  # fmt: skip
    parser.add_argument(
        "--workers", type=int, default=0, help="default: every core, or all of the cluster"
    )
    parser.add_argument(
        "--keep-copies", type=Path, metavar="DIR", help="also store the degraded copies here"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="say what would be done and how long it will take"
    )


def run(options: argparse.Namespace) -> int:
    """Label and print the counts by degradation."""
    from cli.labels import print_counts  # pyarrow comes with the extras label and train
    from labelers.config import load_label_config
    from labelers.job import LabelJob
    from labelers.run import run as run_job

    job = LabelJob(
        config=load_label_config(options.config),
        images=options.images,
        truth=options.truth,
        out=options.out,
        networks_file=options.networks,
        keep_copies=options.keep_copies,
        engine=options.engine,
        workers=options.workers,
    )
    if options.dry_run:
        return _dry_run(job)
    try:
        with Progress("images") as progress:
            result = run_job(job, progress)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        raise
    print_counts(result.labels)
    for number, round_ in enumerate(result.rounds, 1):
        sides = "; ".join(
            f"{c.side} {c.useful} useful, {c.non_useful} non-useful" for c in round_.counts
        )
        print(f"balancing, round {number}: {round_.augmented} augmented sources; now {sides}")
    print(f"{result.observations} observations, {len(result.labels)} labels in {job.out}")
    if not result.observed:
        print("all of it was there already; nothing was computed")
    elif result.busy_seconds:
        share = result.forward_seconds / result.busy_seconds
        print(f"{result.observed} sources observed; the networks took {share:.0%} of the time")
    if result.skipped:
        print(f"{len(result.skipped)} images left out, see {job.out / 'skipped.csv'}")
    return 0


def _dry_run(job: LabelJob) -> int:
    from labelers.plan import plan

    made = plan(job)
    print(f"{made.sources} sources, {made.done} of them observed already")
    print(f"{made.copies} copies of each: {', '.join(made.degradations)}")
    print(f"{len(made.networks)} networks: {', '.join(made.networks)}")
    print(f"{made.observations} observations, about {made.megabytes:.1f} MB")
    if made.timed:
        print(
            f"about {made.seconds / 60:.0f} min on {made.workers} workers: "
            f"{made.seconds_each:.1f} s a source, measured on {made.timed}"
        )
    return 0
