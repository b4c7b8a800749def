"""The command line's entry: finds the subcommand, turns our errors into messages."""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import sys
import warnings
from collections.abc import Sequence

from utility_gate import __version__
from utility_gate.errors import UtilityGateError

COMMANDS = {
    "assess": "judge images, in this process or by a running gate",
    "suggest": "say how far images can be compressed and stay useful",
    "value": "measure what the gate is worth in front of a pipeline",
    "serve": "run the gate",
    "health": "ask a running gate whether it is ready",
    "key": "make an API key for a client",
    "card": "print what is known of a predictor, with its recorded measurements",
    "label": "make observations and labels from pristine images",
    "relabel": "apply other thresholds to stored observations",
    "report": "a page about a labelling run: counts, curves, agreement, examples",
    "export": "labels as CSV or as WebDataset shards",
    "pretrain": "teach a ResNet-18 to see, from unlabelled photographs",
    "train": "train, calibrate and export a predictor from labels",
    "quantize": "give a predictor int8 weights beside its fp32 ones",
    "evaluate": "measure a predictor on held-out images beside the trivial gates",
    "pipeline": "train, serve or ask what stands behind the gate: car damage, car model",
}


EXTRAS = {
    "label": "label", "relabel": "label", "export": "label", "report": "report", "value": "report",
    "pretrain": "train", "train": "train", "quantize": "train", "evaluate": "report",
    "pipeline": "train",
}  # fmt: skip
"""What must be installed beside the service for a subcommand."""


def build_parser() -> argparse.ArgumentParser:
    """The parser with every subcommand; importing one costs no torch."""
    parser = argparse.ArgumentParser(
        prog="utility-gate", description="Tells whether a machine can decide on an image."
    )
    parser.add_argument("--version", action="version", version=f"utility-gate {__version__}")
    parser.add_argument("-v", "--verbose", action="store_true", help="log more, show tracebacks")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        module = importlib.import_module(f"cli.{name}")
        command = commands.add_parser(name, help=summary, description=module.__doc__)
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand; returns its exit code: 0 done, 1 failed, 2 wrong usage."""
    options = build_parser().parse_args(arguments)
    # What Pillow warns of (damaged EXIF, large headers) callers are told or need not know; every
    # distinct warning would be remembered for ever.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    logging.basicConfig(
        level=logging.DEBUG if options.verbose else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    for name in ("lightning", "lightning.pytorch", "onnx_ir", "onnxscript"):
        logging.getLogger(name).setLevel(logging.DEBUG if options.verbose else logging.WARNING)
    try:
        code: int = options.run(options)
        sys.stdout.flush()
    except ModuleNotFoundError as error:
        if options.verbose or options.command not in EXTRAS:
            raise
        extra = EXTRAS[options.command]
        print(
            f"utility-gate {options.command}: needs {error.name}, of the extra {extra}: "
            f"pip install '.[{extra}]'",
            file=sys.stderr,
        )
        return 1
    except UtilityGateError as error:
        if options.verbose:
            raise
        print(f"utility-gate {options.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader (head, less) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code


if __name__ == "__main__":
    sys.exit(main())
