"""Print what is known of a predictor: what it is and is for, what it promises, how good it is.

The measurements are those that `utility-gate evaluate --record` wrote into its card. Int8 weights
are loaded too, and it is said whether they can be used here.
"""

from __future__ import annotations

import argparse
import json

from utility_gate.checkpoint import Card, Guarantee
from utility_gate.errors import CheckpointError
from utility_gate.predictor import EMBEDDED, UtilityPredictor
from utility_gate.types import Thresholds

_PROMISES = {
    "reject_useful": "of a photograph's useful copies at most {risk:.1%} are rejected, in the mean",
    "pass_non_useful": "of its non-useful copies at most {risk:.1%} pass, in the mean",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `utility-gate card`."""
    parser.add_argument(
        "--predictor", default=EMBEDDED, metavar="DIR", help="checkpoint; embedded:TASK ships"
    )
    parser.add_argument("--json", action="store_true", help="the whole card")


def run(options: argparse.Namespace) -> int:
    """Print."""
    card = UtilityPredictor.load(options.predictor).card
    if options.json:
        print(json.dumps(card.model_dump(mode="json"), indent=2, sort_keys=True))
    else:
        _print_summary(card, options.predictor)
    return 0


def _print_summary(card: Card, source: str) -> None:
    print(f"{card.name} {card.version}, task {card.task}, SHA-256 {card.weights.sha256}")
    print(
        f"USEFUL from utility {card.thresholds.useful:.4f}, "
        f"NON_USEFUL below {card.thresholds.review:.4f}; temperature {card.temperature:.4f}"
    )
    for guarantee in card.guarantees:
        print(_promise(guarantee, card.thresholds))
    _print_int8(card, source)
    if card.intended_use:
        print(f"\nMade for: {card.intended_use}")
    if card.limits:
        print("\nLimits:")
    for limit in card.limits:
        print(f"- {limit}")
    print()
    copies = card.training.get("copies", {})
    if copies:
        print("| side | sources | useful | non-useful | undecided |\n|---|---|---|---|---|")
    for side, count in copies.items():
        print(
            f"| {side} | {count['sources']} | {count['useful']} | {count['non_useful']} | "
            f"{count['undecided']} |"
        )
    print(f"\n{card.metrics.get('table', 'No measurements recorded.')}")


def _promise(guarantee: Guarantee, thresholds: Thresholds) -> str:
    text = _PROMISES[guarantee.kind].format(risk=guarantee.risk)
    seen = f"{guarantee.achieved:.2%} seen on {guarantee.sources} photographs"
    if not guarantee.holds:
        return f"No promise that {text}: too few photographs ({seen})"
    rejects = guarantee.kind == "reject_useful"
    threshold = thresholds.review if rejects else thresholds.useful
    kept = threshold <= guarantee.threshold if rejects else threshold >= guarantee.threshold
    if not kept:
        return (
            f"No promise that {text}: it was made at {guarantee.threshold:.4f}, the threshold is "
            f"{threshold:.4f}"
        )
    return f"Promised: {text} ({seen})"


def _print_int8(card: Card, source: str) -> None:
    if card.quantized is None:
        return
    own = card.variant("int8")
    print(
        f"\nint8: SHA-256 {own.weights.sha256}\nUSEFUL from utility {own.thresholds.useful:.4f}, "
        f"NON_USEFUL below {own.thresholds.review:.4f}; temperature {own.temperature:.4f}; no "
        "promises"
    )
    measured = own.metrics.get("validation")
    if measured:
        print(
            f"validation AUROC {measured['int8']['auroc']:.4f}, of fp32 "
            f"{measured['fp32']['auroc']:.4f}; utilities differ by "
            f"{measured['mean_difference']:.4f} in the mean, by "
            f"{measured['largest_difference']:.3f} at most"
        )
    try:
        UtilityPredictor.load(source, precision="int8")
    except CheckpointError as error:
        print(f"It cannot be used here: {error}")
