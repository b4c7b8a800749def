"""Ask a gate for its health (grpc.health.v1); exit code 0 if it is ready, else 1."""

from __future__ import annotations

import argparse

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from server.app import SERVICE
from server.settings import load_settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `utility-gate health`."""
    parser.add_argument(
        "--target", metavar="HOST:PORT", help="default: the port of the settings, on loopback"
    )
    parser.add_argument("--timeout", type=float, default=3.0, metavar="SECONDS")


def run(options: argparse.Namespace) -> int:
    """Ask once and print the status."""
    target = options.target or f"127.0.0.1:{load_settings().port}"
    with grpc.insecure_channel(target) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            request = health_pb2.HealthCheckRequest(service=SERVICE)
            answer = stub.Check(request, timeout=options.timeout)
        except grpc.RpcError as error:
            print(f"{target}: {error.code().name}: {error.details()}")
            return 1
    print(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))
    return 0 if answer.status == health_pb2.HealthCheckResponse.SERVING else 1
