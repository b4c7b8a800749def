"""Real gates in processes of their own, and what the kernel says of them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


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


@contextmanager
def gate_process(**settings: object) -> Iterator[GateProcess]:
    """`utility-gate serve` on free loopback ports with `settings` in its environment."""
    values = {"port": 0, "web_port": 0, "drain_seconds": 0, "log_level": "WARNING"} | settings
    environment = {f"UTILITY_GATE_{name.upper()}": str(value) for name, value in values.items()}
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "cli.main", "serve"],
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
