"""Show a labelling run as one HTML page: counts, accuracies, agreement, flips (extra `report`).

LABELS is the folder that `utility-gate label` wrote. The page needs no network and no script, and
prints. --images is the folder of pristine images that was labelled; with it the page shows sources
that flip from useful to non-useful, their copies made again and checked.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from utility_gate.errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `utility-gate report`."""
    parser.add_argument("labels_folder", type=Path, metavar="LABELS")
    parser.add_argument("--images", type=Path, metavar="DIR", help="for the contact sheet")
    parser.add_argument(
        "--out", type=Path, metavar="FILE.html", help="the page; LABELS/report.html if not given"
    )
    parser.add_argument(
        "--labels", type=Path, metavar="FILE.parquet",
        help="labels that `utility-gate relabel` made of these observations",
    )  # fmt: skip
    parser.add_argument(
        "--sheet", type=int, default=24, metavar="N", help="sources in the contact sheet"
    )


def run(options: argparse.Namespace) -> int:
    """Write the page and say where it is."""
    from labelers.report.page import write_report

    if options.sheet < 1:
        raise ConfigError(f"expected --sheet >= 1, got {options.sheet}")
    out = options.out or options.labels_folder / "report.html"
    size = write_report(options.labels_folder, out, options.images, options.labels, options.sheet)
    print(f"{out}: {size / 1e6:.1f} MB")
    return 0
