"""What judges images: a gate at an address, or a predictor in this process; and its options."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import get_args

from cli.connection import add_connection_arguments, api_key, credentials, is_secured
from server.gate import Gate
from utility_gate.checkpoint import Precision
from utility_gate.client import GateClient
from utility_gate.errors import ConfigError
from utility_gate.predictor import EMBEDDED, UtilityPredictor
from utility_gate.types import Verdict

Judge = Callable[[bytes], Verdict]


def add_judge_arguments(
    parser: argparse.ArgumentParser, task: str = "task to judge for; default: the gate's own"
) -> None:
    """Options that say who judges; `task` is what the help says of --task."""
    parser.add_argument("--target", metavar="HOST:PORT", help="ask this gate; else in-process")
    parser.add_argument("--task", default="", help=task)
    parser.add_argument(
        "--predictor",
        default=EMBEDDED,
        metavar="DIR",
        help="checkpoint to use in-process; embedded:TASK is one that ships for a task",
    )
    parser.add_argument(
        "--precision", choices=get_args(Precision), help="of its weights; default: fp32"
    )
    add_connection_arguments(parser)


def open_judge(options: argparse.Namespace) -> tuple[Judge, Callable[[], None]]:
    """What judges images as the options say, and how to close it.

    Raises:
        UtilityGateError: if there is none.
    """
    client = open_client(options)
    if client is not None:
        return client.assess, client.close
    predictor = load_predictor(options)
    gate = Gate({predictor.card.task: predictor})
    return lambda data: gate.assess(data, options.task), lambda: None


def open_client(options: argparse.Namespace) -> GateClient | None:
    """The client of the gate that was asked for; None if a predictor in this process was.

    Raises:
        ConfigError: if the options ask for both.
    """
    if options.target is None:
        if is_secured(options):
            raise ConfigError("expected --target beside --ca, --certificate and --key")
        return None
    for name, given in (
        ("predictor", options.predictor != EMBEDDED),
        ("precision", options.precision is not None),
    ):
        if given:
            raise ConfigError(f"expected --target or --{name}, got both")
    return GateClient(
        options.target, task=options.task, credentials=credentials(options), api_key=api_key()
    )


def load_predictor(options: argparse.Namespace) -> UtilityPredictor:
    """The predictor that was asked for.

    Raises:
        CheckpointError: if it is not usable, or has no weights of that precision.
    """
    return UtilityPredictor.load(options.predictor, precision=options.precision or "fp32")
