"""Print what is known of a predictor: what it is, what it was trained on, how good it is.

The measurements are those that `utility-gate evaluate --record` wrote into its card.
"""

from __future__ import annotations

import argparse
import json

from utility_gate.checkpoint import Card
from utility_gate.predictor import EMBEDDED, UtilityPredictor


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `utility-gate card`."""
    parser.add_argument("--predictor", default=EMBEDDED, metavar="DIR")
    parser.add_argument("--json", action="store_true", help="the whole card")


def run(options: argparse.Namespace) -> int:
    """Print."""
    card = UtilityPredictor.load(options.predictor).card
    if options.json:
        print(json.dumps(card.model_dump(mode="json"), indent=2, sort_keys=True))
    else:
        _print_summary(card)
    return 0


def _print_summary(card: Card) -> None:
    print(f"{card.name} {card.version}, task {card.task}, SHA-256 {card.weights.sha256}")
    print(
        f"USEFUL from utility {card.thresholds.useful:.4f}, "
        f"NON_USEFUL below {card.thresholds.review:.4f}; temperature {card.temperature:.4f}\n"
    )
    copies = card.training.get("copies", {})
    if copies:
        print("| side | sources | useful | non-useful | undecided |\n|---|---|---|---|---|")
    for side, count in copies.items():
        print(
            f"| {side} | {count['sources']} | {count['useful']} | {count['non_useful']} | "
            f"{count['undecided']} |"
        )
    print(f"\n{card.metrics.get('table', 'No measurements recorded.')}")
