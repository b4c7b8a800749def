"""What a route adds to a forwarded call: the pipeline called directly, and through the gate.

Run with `make bench`. The pipeline answers at once, so that what is measured is the way there: the
same requests go directly, through a route whose mode is OFF (forwarded unseen), and through one
that judges; and their images to Assess, which is the judging alone. One after the other in short
turns, so that a busy machine slows all of them. Pipeline, gate and caller are processes of their
own on the same cores.

Then the pipeline is killed under load, and started again three seconds later.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import grpc
import numpy as np
from PIL import Image
from skimage import data

from tests.processes import free_port, gate_process
from tests.shop import LOOK, LookRequest
from utility_gate.client import GateClient
from utility_gate.degrade import Jpeg

SIZES = {"640x480": (640, 480), "1920x1080": (1920, 1080)}
QUALITY = 85
TURN = 5
"""Calls of one kind before it is the next one's turn."""
RATE = 100
"""Calls a second while it is killed."""

SERVED_BY = f"/{LOOK}"


@contextmanager
def pipeline(port: int) -> Iterator[str]:
    """A pipeline in a process of its own; killed at the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.shop", str(port)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()


def routes(mode: str) -> str:
    """One judged route, in this mode whatever the images are."""
    route = {"method": LOOK, "upstream": "pipeline", "image_field": "image", "mode": mode}
    return json.dumps([route])


def measure(calls: dict[str, Callable[[], Any]], count: int) -> dict[str, np.ndarray]:
    """Milliseconds of `count` calls of each kind, in turns."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        for _ in range(TURN):
            call()
    order = random.Random(7)  # noqa: S311 - who comes after whom matters to a busy machine
    for _ in range(count // TURN):
        for name, call in order.sample(sorted(calls.items()), len(calls)):
            for _ in range(TURN):
                started = time.perf_counter()
                call()
                taken[name].append(1000 * (time.perf_counter() - started))
    return {name: np.array(values) for name, values in taken.items()}


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=600, help="of each kind")
    count = parser.parse_args().calls
    photograph = Image.fromarray(data.coffee())
    print(f"{count} calls of each kind, one at a time; median (p99), milliseconds\n")
    print("| request | direct | route, OFF | route, judged | Assess | route adds | judged adds |")
    print("|---|---|---|---|---|---|---|")
    with pipeline(free_port()) as target:
        upstreams = json.dumps({"pipeline": {"addresses": [target]}})
        with (
            gate_process(upstreams=upstreams, routes=routes("OFF")) as off,
            gate_process(upstreams=upstreams, routes=routes("SHADOW")) as judging,
            grpc.insecure_channel(target) as straight,
            grpc.insecure_channel(off.target) as through,
            grpc.insecure_channel(judging.target) as judged,
            GateClient(judging.target) as gate,
        ):
            for name, size in SIZES.items():
                image = Jpeg(QUALITY).apply(np.asarray(photograph.resize(size)))
                request = LookRequest(id="7", image=image).SerializeToString()
                ways = [channel.unary_unary(SERVED_BY) for channel in (straight, through, judged)]
                wait_until_served(ways[2], request)
                kinds = ("direct", "OFF", "judged")
                calls: dict[str, Callable[[], Any]] = {
                    kind: partial(way, request, timeout=20)
                    for kind, way in zip(kinds, ways, strict=True)
                }
                calls["Assess"] = partial(gate.assess, image)
                taken = measure(calls, count)
                middle = {kind: float(np.median(values)) for kind, values in taken.items()}
                cells = [
                    f"{middle[kind]:.2f} ({np.percentile(values, 99):.2f})"
                    for kind, values in taken.items()
                ]
                adds = middle["OFF"] - middle["direct"]
                more = middle["judged"] - middle["direct"] - middle["Assess"]
                print(
                    f"| {name}, {len(image) / 1024:.0f} KiB | {' | '.join(cells)} | "
                    f"{adds:+.2f} | {more:+.2f} beyond Assess |"
                )
    small = Jpeg(QUALITY).apply(np.asarray(photograph.resize(SIZES["640x480"])))
    asyncio.run(kill(LookRequest(id="7", image=small).SerializeToString()))


@dataclass(frozen=True, slots=True)
class Outcome:
    """One call: when it began (monotonic), its milliseconds, and its code."""

    began: float
    took: float
    code: str


async def offer(target: str, request: bytes, end: asyncio.Event, outcomes: list[Outcome]) -> None:
    """Calls at a fixed rate, whatever comes back, without retries."""
    options = (("grpc.enable_retries", 0),)
    async with grpc.aio.insecure_channel(target, options=options) as channel:
        way: Any = channel.unary_unary(SERVED_BY)

        async def call() -> None:
            began, code = time.monotonic(), "OK"
            try:
                await way(request, timeout=20)
            except grpc.aio.AioRpcError as error:
                code = error.code().name
            outcomes.append(Outcome(began, 1000 * (time.monotonic() - began), code))

        calls: list[asyncio.Future[None]] = []
        while not end.is_set():
            calls.append(asyncio.ensure_future(call()))
            await asyncio.sleep(1 / RATE)
        await asyncio.gather(*calls)


async def kill(request: bytes) -> None:
    """Print what callers hear while the pipeline is dead, and when it is back."""
    port = free_port()
    target = f"127.0.0.1:{port}"
    upstreams = json.dumps({"pipeline": {"addresses": [target]}})
    with gate_process(upstreams=upstreams, routes=routes("OFF")) as gate:
        outcomes: list[Outcome] = []
        end = asyncio.Event()
        with pipeline(port):
            load = asyncio.ensure_future(offer(gate.target, request, end, outcomes))
            await asyncio.sleep(3)
        killed = time.monotonic()
        await asyncio.sleep(3)
        with pipeline(port):
            back = time.monotonic()
            await asyncio.sleep(4)
            end.set()
            await load
    dead = [one for one in outcomes if killed + 0.1 < one.began < back]
    took = np.array([one.took for one in dead])
    again = min(one.began for one in outcomes if one.began > back and one.code == "OK") - back
    late = Counter(one.code for one in outcomes if one.began > back + again + 0.1)
    print(
        f"\nkilled under {RATE} calls/s: {len(dead)} calls while it was dead, "
        f"{dict(Counter(one.code for one in dead))}, median {np.median(took):.1f} ms, "
        f"p99 {np.percentile(took, 99):.1f} ms, longest {took.max():.1f} ms; "
        f"served again {again:.2f} s after it listened, then {dict(late)}"
    )


def wait_until_served(way: Any, request: bytes) -> None:
    """The gate asks the pipeline for its contract first."""
    end = time.monotonic() + 20
    while True:
        try:
            way(request, timeout=5)
        except grpc.RpcError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)
        else:
            return


if __name__ == "__main__":
    main()
