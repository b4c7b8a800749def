"""Teach a ResNet-18 to see by reproducing a ready-made network (needs the extra `train`).

Only needed where torchvision's ImageNet weights (--init IMAGENET1K_V1 of train) cannot be had.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from utility_gate.errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `utility-gate pretrain`."""
    parser.add_argument("--photos", type=Path, nargs="+", required=True, metavar="DIR")
    parser.add_argument("--networks", type=Path, required=True, metavar="FILE.toml")
    parser.add_argument("--teacher", required=True, metavar="NAME", help="its table in --networks")
    parser.add_argument("--cache", type=Path, required=True, metavar="DIR")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.safetensors")
    parser.add_argument("--samples", type=int, default=200_000)
    parser.add_argument("--side", type=int, default=160)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)


def run(options: argparse.Namespace) -> int:
    """Pretrain and say where the trunk lies."""
    from utility_gate.networks import load_specs
    from utility_gate.training.distill import DistillConfig, distill

    specs = load_specs(options.networks)
    if options.teacher not in specs:
        raise ConfigError(f"expected a teacher of {', '.join(specs)}, got {options.teacher!r}")
    config = DistillConfig(
        photos=tuple(options.photos),
        cache=options.cache,
        out=options.out,
        samples=options.samples,
        side=options.side,
        threads=options.threads,
        seed=options.seed,
    )
    print(distill(config, specs[options.teacher]))
    return 0
