"""`utility-gate pipeline train`, `evaluate`, `sources` and `trunk`: networks from labelled images,
how good they are, how they label, and what a gate learns on (all but `sources` need the extra
`train`)."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path
from typing import Any

from pipelines.embedded import CLASSIFIER, model_folder
from utility_gate.errors import ConfigError
from utility_gate.predictor import EMBEDDED

_OF_ONE = {"rates": "car_model", "dropouts": "car_model"}
"""Options that only one pipeline has."""


def add_train_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `train`."""
    _add_common(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="networks go here")
    parser.add_argument(
        "--only", dest="parts", nargs="+", metavar="PART", help="classifier or detector"
    )
    parser.add_argument("--folds", type=int, metavar="K", help="cross-validate the classifier")
    parser.add_argument(
        "--backbones", nargs="+", metavar="ARCH", help="compare the recipe on these, as seed 000"
    )
    parser.add_argument(
        "--rates", type=float, nargs="+", help="car_model: learning rates to try first"
    )
    parser.add_argument(
        "--dropouts", type=float, nargs="+", help="car_model: dropouts to try first"
    )
    parser.add_argument("--epochs", type=int, help="instead of the recipe's")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--threads", type=int, help="of torch; default: its own number")
    parser.add_argument("--release", help="the networks' version in their cards")


def train(options: argparse.Namespace) -> int:
    """Train and print what came out."""
    chosen: dict[str, Any] = {
        name: value
        for name in ("parts", "folds", "backbones", "rates", "dropouts", "epochs", "seed",
                     "threads", "release")
        if (value := getattr(options, name)) is not None
    }  # fmt: skip
    for name, owner in _OF_ONE.items():
        if name in chosen and options.name != owner:
            raise ConfigError(f"--{name}: only {owner} has it, {options.name} has not")
    training = importlib.import_module(f"pipelines.{options.name}.train")  # torch, for this alone
    print(training.train(options.config, options.data, options.out, **chosen))
    return 0


def add_evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `evaluate`."""
    _add_common(parser)
    _add_model(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="tables go here")


def evaluate(options: argparse.Namespace) -> int:
    """Measure on the test side and print the tables."""
    evaluation = importlib.import_module(f"pipelines.{options.name}.evaluate")
    print(evaluation.evaluate(options.config, options.data, options.model, options.out))
    return 0


def add_sources_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `sources`."""
    _add_common(parser)
    _add_model(parser)
    parser.add_argument("--head", help="damage: type or severity; car_model: model")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")


def sources(options: argparse.Namespace) -> int:
    """Write `networks.toml` and `truth.csv` for `utility-gate label`, of images that the network
    was not trained on."""
    module = importlib.import_module(f"pipelines.{options.name}.data")
    count, head = module.write_sources(
        options.config, options.data, options.model, options.head, options.out
    )
    print(f"{options.out}: {count} sources for the head {head}")
    return 0


def add_trunk_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `trunk`."""
    _add_model(parser)
    parser.add_argument("--head", help="damage: type or severity; car_model: model")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.safetensors")


def trunk(options: argparse.Namespace) -> int:
    """Write the classifier as a trunk that `utility-gate train --init` takes."""
    from pipelines.training.trunk import write_trunk  # torch, for this alone

    data = importlib.import_module(f"pipelines.{options.name}.data")
    head = options.head or data.LABELLING_HEAD
    with model_folder(options.model, f"pipelines.{options.name}") as folder:
        card = write_trunk(folder / CLASSIFIER, head, options.out)
    print(f"{options.out}: {card.name} {card.version}, head {head}")
    return 0


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, required=True, metavar="FILE.toml", help="recipe")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="images")


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model", default=EMBEDDED, metavar="DIR", help="folder of the networks; default: embedded"
    )
