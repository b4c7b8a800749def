"""Ask a gate for its health (grpc.health.v1); exit code 0 if it is ready, else 1.

Without --target the gate of these settings is asked, on this machine; if it is encrypted, its
/readyz.
"""

from __future__ import annotations

import argparse
import urllib.error
import urllib.request
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from cli.connection import add_connection_arguments, credentials, is_secured
from server.app import SERVICE
from server.settings import GateSettings
from serving.settings import load_settings
from utility_gate.channels import open_channel

_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared, not listened on


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `utility-gate health`."""
    parser.add_argument(
        "--target", metavar="HOST:PORT", help="default: the port of the settings, on loopback"
    )
    parser.add_argument(
        "--config", type=Path, metavar="FILE.toml", help="settings of the gate that is asked"
    )
    parser.add_argument("--timeout", type=float, default=3.0, metavar="SECONDS")
    add_connection_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Ask once and print the status."""
    target = options.target
    if target is None:
        settings = load_settings(GateSettings, options.config)
        if settings.tls_certificate is not None and not is_secured(options):
            # We know neither whom to trust nor a name in the certificate; HTTP needs neither.
            return _ask_web(settings, options.timeout)
        target = f"127.0.0.1:{settings.port}"
    with open_channel(target, credentials=credentials(options)) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            request = health_pb2.HealthCheckRequest(service=SERVICE)
            answer = stub.Check(request, timeout=options.timeout)
        except grpc.RpcError as error:
            print(f"{target}: {error.code().name}: {error.details()}")
            return 1
    print(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))
    return 0 if answer.status == health_pb2.HealthCheckResponse.SERVING else 1


def _ask_web(settings: GateSettings, timeout: float) -> int:
    host = settings.web_host or settings.host
    host = _EVERYWHERE.get(host, host)
    host = f"[{host}]" if ":" in host else host
    url = f"http://{host}:{settings.web_port}/readyz"
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(url, timeout=timeout):
            print("SERVING")
            return 0
    except urllib.error.HTTPError as error:
        error.close()
        print("NOT_SERVING")
    except OSError as error:
        print(f"{url}: {error}")
    return 1
