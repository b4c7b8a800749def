"""Measure a predictor on held-out images beside the trivial gates (needs the extra `train`)."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

from utility_gate.errors import ConfigError
from utility_gate.predictor import EMBEDDED, UtilityPredictor


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `utility-gate evaluate`."""
    parser.add_argument("--predictor", default=EMBEDDED, metavar="DIR")
    parser.add_argument("--labels", type=Path, required=True, metavar="FILE.parquet")
    parser.add_argument("--images", type=Path, required=True, metavar="DIR")
    parser.add_argument("--observations", type=Path, metavar="FILE.parquet")
    parser.add_argument("--reference", metavar="NETWORK", help="classifier of trivial gate (b)")
    parser.add_argument("--json", action="store_true", help="JSON instead of Markdown")
    parser.add_argument(
        "--record", action="store_true", help="write the result into the card's metrics"
    )


def run(options: argparse.Namespace) -> int:
    """Evaluate and print."""
    from utility_gate.checkpoint import save_card
    from utility_gate.training.evaluate import evaluate, to_markdown

    if (options.observations is None) != (options.reference is None):
        raise ConfigError("expected --observations and --reference together")
    if options.record and options.predictor == EMBEDDED:
        raise ConfigError("expected --predictor DIR with --record, got the embedded predictor")
    predictor = UtilityPredictor.load(options.predictor)
    result = evaluate(
        predictor, options.labels, options.images, options.observations, options.reference
    )
    table = dataclasses.asdict(result)
    if options.record:
        metrics = {**table, "table": to_markdown(result)}
        save_card(predictor.card.model_copy(update={"metrics": metrics}), Path(options.predictor))
    print(json.dumps(table, indent=2) if options.json else to_markdown(result))
    return 0
