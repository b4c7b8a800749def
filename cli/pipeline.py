"""The pipelines that stand behind the gate: damage of a car, and its make and model.

`serve` runs until SIGTERM or Ctrl-C; its settings are the gate's, but for predictors and what comes
with them, under DAMAGE_PIPELINE_... and CAR_MODEL_PIPELINE_... in the environment.
"""

from __future__ import annotations

import argparse
from typing import Any

from cli import pipeline_ask, pipeline_train
from cli.serve import add_listening_arguments, serve_until_stopped
from pipelines.car_model.app import CarModelServer, CarModelSettings
from pipelines.damage.app import DamageServer, DamageSettings
from serving.settings import load_settings

NAMES = ("damage", "car_model")

_SERVICES: dict[str, tuple[type[Any], type[Any]]] = {
    "damage": (DamageServer, DamageSettings),
    "car_model": (CarModelServer, CarModelSettings),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `utility-gate pipeline`."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, summary, add, act in _ACTIONS:
        action = actions.add_parser(name, help=summary, description=summary)
        action.add_argument("name", choices=NAMES, metavar="NAME", help=" or ".join(NAMES))
        add(action)
        action.set_defaults(act=act)


def run(options: argparse.Namespace) -> int:
    """Do what was asked."""
    code: int = options.act(options)
    return code


def _add_serve_arguments(parser: argparse.ArgumentParser) -> None:
    add_listening_arguments(parser)
    parser.add_argument(
        "--model", metavar="DIR", help="folder of the pipeline's networks; default: the settings'"
    )


def _serve(options: argparse.Namespace) -> int:
    server, kind = _SERVICES[options.name]
    settings = load_settings(
        kind,
        options.config,
        host=options.host,
        port=options.port,
        web_port=options.web_port,
        model=options.model,
    )
    return serve_until_stopped(lambda: server(settings), settings, verbose=options.verbose)


_ACTIONS = (
    ("ask", "answer on image files, in this process", pipeline_ask.add_arguments, pipeline_ask.run),
    ("serve", "run a pipeline's service", _add_serve_arguments, _serve),
    ("train", "train, calibrate and export a pipeline's networks",
     pipeline_train.add_train_arguments, pipeline_train.train),
    ("evaluate", "measure a pipeline's networks on images that they were not trained on",
     pipeline_train.add_evaluate_arguments, pipeline_train.evaluate),
    ("sources", "write what `utility-gate label` needs to use a pipeline's network",
     pipeline_train.add_sources_arguments, pipeline_train.sources),
    ("trunk", "write a pipeline's classifier as what a gate in front of it learns on",
     pipeline_train.add_trunk_arguments, pipeline_train.trunk),
)  # fmt: skip
"""Name, summary, options and deed of each action."""
