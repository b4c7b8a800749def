"""The gate over gRPC against its own ceiling: decoding and inference without a server.

Run with `make bench`. Both use the same images, the same predictor and the same number of
threads, alternately, so that a busy machine slows both. The load generator runs in this process
and on the same cores as the gate, which runs in one of its own.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from PIL import Image
from skimage import data

from examples.demo import running_gate
from server.gate import Gate
from utility_gate.client import AsyncGateClient
from utility_gate.degrade import Jpeg
from utility_gate.predictor import UtilityPredictor

SIZES = {"640x480": (640, 480), "1920x1080": (1920, 1080)}
QUALITY = 85
SECONDS = 5.0
ROUNDS = 3
IN_FLIGHT = 8


@dataclass(frozen=True, slots=True)
class Pass:
    """One measurement: images per second, and the latencies in milliseconds."""

    rate: float
    latencies: list[float]


def ceiling(gate: Gate, image: bytes, threads: int) -> Pass:
    """`Gate.assess` called by threads in a closed loop, no server between."""
    end = time.perf_counter() + SECONDS

    def loop() -> list[float]:
        latencies = []
        while time.perf_counter() < end:
            started = time.perf_counter()
            gate.assess(image)
            latencies.append(1000 * (time.perf_counter() - started))
        return latencies

    with ThreadPoolExecutor(threads) as pool:
        parts = [pool.submit(loop) for _ in range(threads)]
        latencies = [value for part in parts for value in part.result()]
    return Pass(len(latencies) / SECONDS, latencies)


async def served(target: str, image: bytes) -> Pass:
    """The same through the client, `IN_FLIGHT` calls at a time."""
    latencies: list[float] = []
    async with AsyncGateClient(target) as client:
        end = time.perf_counter() + SECONDS

        async def loop() -> None:
            while time.perf_counter() < end:
                started = time.perf_counter()
                await client.assess(image)
                latencies.append(1000 * (time.perf_counter() - started))

        await asyncio.gather(*(loop() for _ in range(IN_FLIGHT)))
    return Pass(len(latencies) / SECONDS, latencies)


def main() -> None:
    """Print a table, medians over rounds."""
    threads = os.cpu_count() or 1
    gate = Gate({"general": UtilityPredictor.load()})
    photograph = Image.fromarray(data.coffee())
    print(f"{threads} worker threads, {IN_FLIGHT} calls in flight, {ROUNDS} x {SECONDS:g} s each\n")
    print("| image | ceiling, images/s | gate, images/s | ratio | gate p50 ms | gate p99 ms |")
    print("|---|---|---|---|---|---|")
    with running_gate(quiet=True) as target:
        for name, size in SIZES.items():
            image = Jpeg(QUALITY).apply(np.asarray(photograph.resize(size)))
            alone, through = [], []
            for _ in range(ROUNDS):
                alone.append(ceiling(gate, image, threads))
                through.append(asyncio.run(served(target, image)))
            bare = statistics.median(one.rate for one in alone)
            rate = statistics.median(one.rate for one in through)
            latencies = np.concatenate([one.latencies for one in through])
            p50, p99 = np.percentile(latencies, [50, 99])
            print(
                f"| {name}, {len(image) / 1024:.0f} KiB | {bare:.0f} | {rate:.0f} | "
                f"{rate / bare:.2f} | {p50:.1f} | {p99:.1f} |"
            )


if __name__ == "__main__":
    main()
