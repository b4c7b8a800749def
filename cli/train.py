"""Train, calibrate and export a predictor from label tables (needs the extra `train`).

On several GPUs: `torchrun --nproc-per-node N -m cli.main train ...`. A run that was killed goes on
after its last whole epoch if it is started again with the same options.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `utility-gate train`."""
    parser.add_argument(
        "--preset",
        default="best",
        metavar="NAME",
        help="best, embedded, finetune, paper, pipeline, or a TOML file of your own",
    )
    parser.add_argument("--labels", type=Path, nargs="+", required=True, metavar="FILE.parquet")
    parser.add_argument("--images", type=Path, required=True, metavar="DIR")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument(
        "--cache", type=Path, metavar="DIR", help="keep decoded images and features there"
    )
    parser.add_argument(
        "--init", help="scratch, IMAGENET1K_V1, or a trunk made by pretrain or pipeline trunk"
    )
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--epoch-samples", type=int)
    parser.add_argument("--side", type=int, help="input side in pixels")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--task", default="general")
    parser.add_argument("--name", default="resnet18", help="the predictor's name in its card")
    parser.add_argument("--release", default="1", help="the predictor's version in its card")
    parser.add_argument(
        "--intended-use", default="", metavar="TEXT", help="for the card: what it is for"
    )
    parser.add_argument(
        "--limits",
        nargs="*",
        default=[],
        metavar="TEXT",
        help="for the card: what it was not made for, or is known to get wrong",
    )
    parser.add_argument(
        "--conformance",
        type=Path,
        nargs="*",
        default=[],
        metavar="PHOTO",
        help="photographs, free to publish, for the card's conformance vectors",
    )


def run(options: argparse.Namespace) -> int:
    """Train and say what came out."""
    from utility_gate.training.config import load_config
    from utility_gate.training.train import train

    config = load_config(
        options.preset,
        init=options.init,
        epochs=options.epochs,
        epoch_samples=options.epoch_samples,
        side=options.side,
        seed=options.seed,
    )
    card = train(
        config,
        options.labels,
        options.images,
        options.out,
        name=options.name,
        release=options.release,
        task=options.task,
        cache=options.cache,
        conformance_photos=tuple(options.conformance),
        intended_use=options.intended_use,
        limits=tuple(options.limits),
    )
    if card is None:  # one of several processes, and not the first
        return 0
    print(f"{options.out}: validation AUROC {card.training['validation_auroc']:.4f}, "
          f"temperature {card.temperature:.3f}, useful from {card.thresholds.useful:.3f}, "
          f"non-useful below {card.thresholds.review:.3f}")  # fmt: skip
    return 0
