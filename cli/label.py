"""Compress pristine images, let networks look at the copies, write observations and labels.

--images is the folder of pristine images, --truth a CSV with the columns path and class_index,
--networks a TOML file that describes ONNX classifiers. What is done with them stands in --config.
"""

from __future__ import annotations

import argparse
import os
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

from cli.progress import Progress
from utility_gate.errors import ConfigError
from utility_gate.types import Label


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `utility-gate label`."""
    parser.add_argument("--config", type=Path, required=True, metavar="FILE.toml")
    parser.add_argument("--images", type=Path, required=True, metavar="DIR")
    parser.add_argument("--truth", type=Path, required=True, metavar="FILE.csv")
    parser.add_argument("--networks", type=Path, metavar="FILE.toml")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)


def run(options: argparse.Namespace) -> int:
    """Label and print the counts by quality."""
    from labelers.run import LabelConfig  # pyarrow comes with the extras label and train
    from labelers.run import run as run_job

    config = LabelConfig(
        images=options.images,
        truth=options.truth,
        out=options.out,
        networks_file=options.networks,
        workers=options.workers,
        **_read_config(options.config),
    )
    with Progress("images") as progress:
        result = run_job(config, progress)
    _print_counts(result.labels)
    print(f"{result.observations} observations, {len(result.labels)} labels in {config.out}")
    if result.skipped:
        print(f"{len(result.skipped)} images left out, see {config.out / 'skipped.csv'}")
    return 0


def _read_config(path: Path) -> dict[str, Any]:
    from labelers.rules import CcspRule

    known = {"networks", "observe_only", "qualities", "rule"}
    try:
        table = tomllib.loads(path.read_text())
        unknown = set(table) - known
        if unknown:
            raise ConfigError(f"{path}: expected only {sorted(known)}, got {sorted(unknown)}")
        if "rule" in table:
            table["rule"] = CcspRule(**table["rule"])
        for name in ("networks", "observe_only", "qualities"):
            if name in table:
                table[name] = tuple(table[name])
    except (OSError, tomllib.TOMLDecodeError, TypeError, ValueError) as error:
        raise ConfigError(f"{path}: not a labelling configuration: {error}") from error
    if "networks" not in table:
        raise ConfigError(f"{path}: expected networks = [...], found none")
    return table


def _print_counts(labels: list[Label]) -> None:
    counts = Counter((label.quality, label.label) for label in labels)
    print(f"{'quality':>8} {'useful':>8} {'non-useful':>11} {'undecided':>10}")
    for quality in sorted({label.quality for label in labels}, reverse=True):
        row = [counts[quality, value] for value in (1, 0, None)]
        print(f"{quality:>8} {row[0]:>8} {row[1]:>11} {row[2]:>10}")
