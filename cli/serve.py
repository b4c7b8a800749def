"""Run the gate until SIGTERM or Ctrl-C. Settings: docs/settings.md."""

from __future__ import annotations

import argparse
import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from server.app import GateServer
from server.settings import GateSettings
from serving import logs
from serving.app import ServiceServer, serve
from serving.settings import ServiceSettings, load_settings
from utility_gate.errors import UtilityGateError

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `utility-gate serve`."""
    add_listening_arguments(parser)


def add_listening_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of every subcommand that runs a service."""
    parser.add_argument("--config", type=Path, metavar="FILE.toml", help="settings file")
    parser.add_argument("--host", help="address to listen on")
    parser.add_argument("--port", type=int, help="gRPC port; 0 takes a free one")
    parser.add_argument("--web-port", type=int, help="HTTP port of the metrics; 0: a free one")


def run(options: argparse.Namespace) -> int:
    """Serve."""
    settings = load_settings(
        GateSettings,
        options.config,
        host=options.host,
        port=options.port,
        web_port=options.web_port,
    )
    return serve_until_stopped(lambda: GateServer(settings), settings, verbose=options.verbose)


def serve_until_stopped(
    make: Callable[[], ServiceServer[Any]], settings: ServiceSettings, *, verbose: bool
) -> int:
    """Run a service until SIGTERM or Ctrl-C; returns the exit code."""
    logs.configure(settings.log_format, None if verbose else settings.log_level)
    try:
        asyncio.run(serve(make, _print_endpoints))
    except UtilityGateError as error:
        if settings.log_format != "json":
            raise  # to be printed
        log.critical("%s", error)
        return 1
    return 0


def _print_endpoints(server: ServiceServer[Any]) -> None:
    for name, address in server.endpoints.items():
        print(f"{name:<8} {address}", flush=True)
