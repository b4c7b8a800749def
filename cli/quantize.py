"""Give a predictor int8 weights beside its fp32 ones (needs the extra `train`).

Made from training copies, calibrated and compared on validation copies; nothing is recorded if they
are worse by more than --max-loss. What to do with them: docs/checkpoint.md.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from utility_gate.errors import ConfigError
from utility_gate.predictor import is_embedded


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `utility-gate quantize`."""
    parser.add_argument("--predictor", required=True, metavar="DIR")
    parser.add_argument("--images", type=Path, required=True, metavar="DIR")
    parser.add_argument(
        "--labels", type=Path, nargs="+", required=True, metavar="FILE.parquet",
        help="those that it was trained with",
    )  # fmt: skip
    parser.add_argument(
        "--copies", type=int, default=200, help="training copies to take activation ranges from"
    )
    parser.add_argument(
        "--max-loss", type=float, default=0.005, help="most that the validation AUROC may fall"
    )
    parser.add_argument(
        "--percentile", type=float, default=99.99, help="of activations, where their range ends"
    )
    parser.add_argument(
        "--first", type=int, default=0, metavar="N", help="convolutions that stay in float"
    )
    parser.add_argument(
        "--exclude", nargs="*", default=[], metavar="NODE", help="nodes that stay in float too"
    )
    parser.add_argument(
        "--reduce-range", action="store_true", help="7-bit weights: for x86 CPUs without VNNI"
    )


def run(options: argparse.Namespace) -> int:
    """Quantise, compare, print and record."""
    from utility_gate.training.quantize import Recipe
    from utility_gate.training.variant import make_variant, record, to_markdown

    if is_embedded(options.predictor):
        raise ConfigError(
            f"expected --predictor DIR, got {options.predictor}, which ships; copy it first"
        )
    if options.copies < 1 or options.max_loss < 0:
        raise ConfigError(
            f"expected --copies of 1 or more and --max-loss of 0 or more, got {options.copies} and "
            f"{options.max_loss:g}"
        )
    try:
        recipe = Recipe(
            options.percentile, options.first, tuple(options.exclude), options.reduce_range
        )
    except ValueError as error:
        raise ConfigError(str(error)) from error
    folder = Path(options.predictor)
    variant = make_variant(folder, options.labels, options.images, recipe, options.copies)
    print(to_markdown(variant.comparison))
    record(variant, folder, options.max_loss)
    print(f"\nrecorded in {folder}; `precision` of `utility-gate serve` chooses it")
    return 0
