"""Make an API key: print it once, and the entry for the gate's file of keys."""

from __future__ import annotations

import argparse
import secrets

from serving.keys import check_name, digest
from utility_gate.channels import API_KEY_VARIABLE
from utility_gate.errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `utility-gate key`."""
    parser.add_argument("name", metavar="NAME", help="the client's name, for logs and metrics")
    parser.add_argument("--rate", type=float, metavar="N", help="images per second; default: any")
    parser.add_argument("--burst", type=float, metavar="N", help="images at once; default: rate")


def run(options: argparse.Namespace) -> int:
    """Print both."""
    name = check_name(options.name)
    entry = [f"[{name}]"]
    key = secrets.token_urlsafe(32)  # 256 bits
    entry.append(f'sha256 = "{digest(key)}"')
    for option, least in (("rate", 0.0), ("burst", 1.0)):
        value = getattr(options, option)
        if value is None:
            continue
        if not max(least, 1e-6) <= value < 1e9:
            raise ConfigError(f"--{option}: expected {least:g} or more, below 1e9, got {value}")
        entry.append(f"{option} = {value!r}")
    if options.burst is not None and options.rate is None:
        raise ConfigError("--burst: expected --rate beside it")
    print(f"The key, shown this once; the client keeps it secret, as {API_KEY_VARIABLE} perhaps:")
    print(f"\n{key}\n")
    print("The entry for the file that the gate's setting api_keys names:\n")
    print("\n".join(entry))
    return 0
