"""How much of its peak a gate still does when ten times as much is asked of it.

Run with `make bench`. First the peak: as many calls in flight as it takes, each answered before
the next. Then ten times that rate for 30 seconds, whatever comes back. The image has few bytes and
many pixels, so that sending it costs little; the load generator runs on the same cores
nevertheless, at low priority, and its calls are not repeated.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from typing import Any

import grpc
import numpy as np

from tests.conftest import encode
from tests.processes import gate_process, offer
from utility_gate.v1 import gate_pb2 as pb
from utility_gate.v1 import gate_pb2_grpc as pb_grpc

IN_FLIGHT = 8
PEAK_SECONDS = 10.0


async def peak(target: str, image: bytes) -> float:
    """Answers per second with `IN_FLIGHT` callers who wait for each answer."""
    done = 0
    async with grpc.aio.insecure_channel(target) as channel:
        stub: Any = pb_grpc.UtilityGateServiceStub(channel)
        end = time.monotonic() + PEAK_SECONDS

        async def caller() -> None:
            nonlocal done
            while time.monotonic() < end:
                await stub.Assess(pb.AssessRequest(image=image), timeout=20)
                done += 1

        await asyncio.gather(*(caller() for _ in range(IN_FLIGHT)))
    return done / PEAK_SECONDS


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=30.0)
    seconds = parser.parse_args().seconds
    image = encode(np.full((1800, 2400, 3), 200, np.uint8), "PNG")
    with gate_process() as gate:
        print(f"ready {gate.seconds_to_ready:.1f} s after the start of the process")
        os.nice(10)
        most = asyncio.run(peak(gate.target, image))
        before = gate.resident
        started = time.monotonic()
        outcomes = asyncio.run(offer(gate.target, image, 10 * most, seconds))
        took = time.monotonic() - started
        goodput = outcomes["OK"] / took
        grown = (gate.resident - before) / 2**20
    print(
        f"peak {most:.1f} images/s; asked for {10 * most:.0f}/s during {seconds:.0f} s: {outcomes}"
    )
    print(
        f"goodput {goodput:.1f} images/s, {goodput / most:.2f} of the peak; memory {grown:+.0f} MiB"
    )


if __name__ == "__main__":
    main()
