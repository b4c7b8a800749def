"""How the command line reaches a gate: --ca, --certificate, --key, and the key's variable."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import grpc

from utility_gate.channels import API_KEY_VARIABLE, tls_credentials
from utility_gate.errors import ConfigError


def add_connection_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of every subcommand that asks a gate."""
    group = parser.add_argument_group(
        "connection", f"An API key is taken from the environment variable {API_KEY_VARIABLE}."
    )
    group.add_argument(
        "--ca", type=Path, metavar="FILE", help="PEM: whom to trust; turns on TLS to the gate"
    )
    group.add_argument(
        "--certificate", type=Path, metavar="FILE", help="PEM: our own, for a gate that asks"
    )
    group.add_argument("--key", type=Path, metavar="FILE", help="PEM: the certificate's key")


def is_secured(options: argparse.Namespace) -> bool:
    """Whether TLS was asked for."""
    return any((options.ca, options.certificate, options.key))


def credentials(options: argparse.Namespace) -> grpc.ChannelCredentials | None:
    """What the options ask for; None is plaintext.

    Raises:
        ConfigError: if a file cannot be used, or one is missing.
    """
    if not is_secured(options):
        return None
    if options.ca is None:
        raise ConfigError("--certificate, --key: expected --ca beside them, whom to trust")
    return tls_credentials(options.ca, options.certificate, options.key)


def api_key() -> str:
    """The key in the environment; "" if there is none."""
    return os.environ.get(API_KEY_VARIABLE, "")
