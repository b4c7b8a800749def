"""Apply other thresholds or another operator to stored observations; no network is needed.

LABELS is the folder of a labelling run. What is not given stays as the run had it.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `utility-gate relabel`."""
    parser.add_argument("labels", type=Path, metavar="LABELS")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.parquet")
    parser.add_argument("--networks", nargs="+", metavar="NAME", help="who has a vote")
    parser.add_argument("--operator", choices=["unanimous", "majority", "mean"])
    parser.add_argument("--t-high", type=float, metavar="T_H", help="classification")
    parser.add_argument("--t-low", type=float, metavar="T_L", help="classification")
    parser.add_argument("--score", type=float, help="detection")
    parser.add_argument("--iou", type=float, help="detection")
    parser.add_argument(
        "--require-pristine",
        action=argparse.BooleanOptionalAction,
        help="detection: judge only copies whose pristine image succeeds",
    )
    parser.add_argument(
        "--recognition", type=float, metavar="PHI_REC", help="of the continuous utility, Eq. 2"
    )


def run(options: argparse.Namespace) -> int:
    """Decide anew and print the counts by degradation."""
    from cli.labels import print_counts  # pyarrow comes with the extras label and train
    from labelers.relabel import relabel

    names = ("operator", "t_high", "t_low", "score", "iou", "require_pristine", "recognition")
    given = {name: getattr(options, name) for name in names}
    changes = {name: value for name, value in given.items() if value is not None}
    voters = tuple(options.networks) if options.networks else None
    print_counts(relabel(options.labels, options.out, changes, voters))
    print(f"labels in {options.out}")
    return 0
