"""Hand labels over: as CSV, or as WebDataset shards with the degraded copies themselves.

LABELS is a table of labels. The copies are made again from --images and checked against their
SHA-256.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from utility_gate.errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `utility-gate export`."""
    parser.add_argument("labels", type=Path, metavar="LABELS.parquet")
    parser.add_argument("--format", choices=["csv", "webdataset"], required=True)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.csv|DIR")
    parser.add_argument("--images", type=Path, metavar="DIR", help="webdataset: the sources")
    parser.add_argument("--shard-size", type=int, default=1000, metavar="COPIES")
    parser.add_argument(
        "--undecided", action="store_true", help="webdataset: undecided copies too, with cls -1"
    )


def run(options: argparse.Namespace) -> int:
    """Write the labels and say how many."""
    from labelers.export import export_csv, export_webdataset

    if options.format == "csv":
        count = export_csv(options.labels, options.out)
    elif options.images is None:
        raise ConfigError("expected --images DIR for webdataset: the copies are made again from it")
    elif options.shard_size < 1:
        raise ConfigError(f"expected --shard-size >= 1, got {options.shard_size}")
    else:
        count = export_webdataset(
            options.labels,
            options.images,
            options.out,
            options.shard_size,
            undecided=options.undecided,
        )
    print(f"{count} labels in {options.out}")
    return 0
