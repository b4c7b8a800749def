"""Run the gate until SIGTERM or Ctrl-C. Settings: docs/settings.md."""

from __future__ import annotations

import argparse
import asyncio
import logging
from pathlib import Path

from server import logs
from server.app import GateServer, serve
from server.settings import load_settings
from utility_gate.errors import UtilityGateError

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `utility-gate serve`."""
    parser.add_argument("--config", type=Path, metavar="FILE.toml", help="settings file")
    parser.add_argument("--host", help="address to listen on")
    parser.add_argument("--port", type=int, help="gRPC port; 0 takes a free one")
    parser.add_argument("--web-port", type=int, help="HTTP port of the metrics; 0: a free one")


def run(options: argparse.Namespace) -> int:
    """Serve."""
    settings = load_settings(
        options.config, host=options.host, port=options.port, web_port=options.web_port
    )
    logs.configure(settings.log_format, None if options.verbose else settings.log_level)
    try:
        asyncio.run(serve(settings, _print_endpoints))
    except UtilityGateError as error:
        if settings.log_format != "json":
            raise  # to be printed
        log.critical("%s", error)
        return 1
    return 0


def _print_endpoints(server: GateServer) -> None:
    for name, address in server.endpoints.items():
        print(f"{name:<8} {address}", flush=True)
