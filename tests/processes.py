"""Real gates in processes of their own, and what the kernel says of them."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2

from utility_gate.v1 import gate_pb2 as pb
from utility_gate.v1 import gate_pb2_grpc as pb_grpc


def free_port() -> int:
    """A loopback port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class GateProcess:
    """A served gate: its process, gRPC address and metrics address."""

    process: subprocess.Popen[str]
    target: str
    metrics: str
    seconds_to_ready: float

    @property
    def resident(self) -> int:
        """Resident memory now, bytes."""
        fields = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        line = next(line for line in fields if line.startswith("VmRSS"))
        return int(line.split()[1]) * 1024

    @property
    def most_resident(self) -> int:
        """The most resident memory so far, bytes."""
        fields = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        line = next(line for line in fields if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024


def gate_process(**settings: object) -> AbstractContextManager[GateProcess]:
    """`utility-gate serve` on free loopback ports with `settings` in its environment."""
    return service_process("serve", prefix="UTILITY_GATE_", **settings)


@contextmanager
def service_process(*command: str, prefix: str, **settings: object) -> Iterator[GateProcess]:
    """`utility-gate COMMAND`, which serves on free loopback ports, with `settings` in its
    environment, their names behind `prefix`."""
    values = {"port": 0, "web_port": 0, "drain_seconds": 0, "log_level": "WARNING"} | settings
    environment = {f"{prefix}{name.upper()}": str(value) for name, value in values.items()}
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "cli.main", *command],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        endpoints = dict(process.stdout.readline().split() for _ in range(4))
        took = time.monotonic() - started
        yield GateProcess(process, endpoints["grpc"], endpoints["metrics"], took)
    finally:
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def retry_delay(error: grpc.aio.AioRpcError) -> float:
    """Seconds of RetryInfo in an error's details; -1 if there are none."""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            for packed in status_pb2.Status.FromString(value).details:
                info = error_details_pb2.RetryInfo()
                if packed.Unpack(info):
                    return info.retry_delay.ToMilliseconds() / 1000
    return -1


async def offer(target: str, image: bytes, rate: float, seconds: float) -> Counter[str]:
    """Calls at a fixed rate, whatever comes back, without retries; outcomes by code."""
    outcomes: Counter[str] = Counter()
    options = (("grpc.enable_retries", 0),)
    async with grpc.aio.insecure_channel(target, options=options) as channel:
        stub: Any = pb_grpc.UtilityGateServiceStub(channel)

        async def call() -> None:
            try:
                await stub.Assess(pb.AssessRequest(image=image), timeout=20)
                outcomes["OK"] += 1
            except grpc.aio.AioRpcError as error:
                outcomes[error.code().name] += 1
                if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
                    outcomes["with RetryInfo"] += retry_delay(error) > 0

        calls, started = [], time.monotonic()
        for number in range(int(rate * seconds)):
            await asyncio.sleep(max(0.0, started + number / rate - time.monotonic()))
            calls.append(asyncio.ensure_future(call()))
        await asyncio.gather(*calls)
    return outcomes
