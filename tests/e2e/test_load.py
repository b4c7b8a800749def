"""More than the gate can bear: nothing that was accepted is lost, nothing is left behind."""

from __future__ import annotations

import asyncio
import io
import random
import signal
import socket
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.conftest import RunningGate, draw, encode
from tests.processes import GateProcess, free_port, gate_process, offer
from tests.raw_http2 import open_call
from utility_gate.client import AsyncGateClient, GateClient
from utility_gate.errors import InputError
from utility_gate.types import Verdict

MIB = 1024 * 1024


def slow_image() -> bytes:
    """Few bytes, many pixels: cheap to send, some ten milliseconds to judge."""
    return encode(np.full((1200, 1600, 3), 200, np.uint8), "PNG")


def read_metric(gate: GateProcess, line: str) -> float:
    page = urllib.request.urlopen(gate.metrics, timeout=5).read().decode()
    values = [row.rsplit(" ", 1)[1] for row in page.splitlines() if row.startswith(line)]
    return sum(map(float, values))


@pytest.mark.slow
def test_ten_times_too_much_is_shed_and_what_was_accepted_is_answered() -> None:
    image = slow_image()
    with gate_process(workers=2, max_waiting=8) as gate:
        warm = asyncio.run(offer(gate.target, image, rate=30, seconds=2))
        before = gate.resident
        outcomes = asyncio.run(offer(gate.target, image, rate=400, seconds=8))
        assert set(outcomes) <= {"OK", "RESOURCE_EXHAUSTED", "with RetryInfo"}
        assert outcomes["OK"] > 50
        assert outcomes["RESOURCE_EXHAUSTED"] > outcomes["OK"]
        assert outcomes["with RetryInfo"] == outcomes["RESOURCE_EXHAUSTED"]
        answered = read_metric(gate, 'utility_gate_requests_total{code="OK",method="Assess"}')
        assert answered == outcomes["OK"] + warm["OK"]
        assert read_metric(gate, "utility_gate_images_in_flight") == 0
        assert gate.resident - before < 60 * MIB


@pytest.mark.slow
def test_10000_cancelled_calls_harm_no_live_one() -> None:
    image = encode(draw(64, 48), quality=80)

    async def session(target: str) -> int:
        live = 0
        async with AsyncGateClient(target, timeout=30) as client:
            for _ in range(50):
                doomed = [asyncio.ensure_future(client.assess(image)) for _ in range(200)]
                wanted = [asyncio.ensure_future(client.assess(image)) for _ in range(4)]
                await asyncio.sleep(0.002)
                for call in doomed:
                    call.cancel()
                await asyncio.gather(*doomed, return_exceptions=True)
                verdicts = await asyncio.gather(*wanted)
                live += sum(isinstance(verdict, Verdict) for verdict in verdicts)
        return live

    with gate_process(max_waiting=1000) as gate:
        assert asyncio.run(session(gate.target)) == 200
        deadline = time.monotonic() + 10
        while read_metric(gate, "utility_gate_images_in_flight") and time.monotonic() < deadline:
            time.sleep(0.05)
        assert read_metric(gate, "utility_gate_images_in_flight") == 0


@pytest.mark.slow
def test_sigterm_under_load_fails_no_request_while_another_gate_stands_by() -> None:
    image = encode(draw(64, 48), quality=80)
    stop, failures, answered = threading.Event(), [], Counter()
    with gate_process(drain_seconds=0.5) as one, gate_process() as other:
        # One client for both; grpc connects to the first and goes over to the other.
        client = GateClient(f"ipv4:{one.target},{other.target}", timeout=20)

        def load() -> None:
            while not stop.is_set():
                try:
                    client.assess(image)
                    answered[one.process.poll() is None] += 1
                except Exception as error:  # noqa: BLE001 - each one counts
                    failures.append(error)

        threads = [threading.Thread(target=load) for _ in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(1)
        one.process.send_signal(signal.SIGTERM)
        assert one.process.wait(20) == 0
        time.sleep(1)
        stop.set()
        for thread in threads:
            thread.join()
        client.close()
    assert failures == []
    assert answered[True] > 20
    assert answered[False] > 20


@pytest.mark.slow
def test_memory_stays_bounded_at_4_megapixels_and_8_in_flight() -> None:
    pixels = np.asarray(Image.fromarray(draw(800, 600)).resize((2309, 1732)))
    image = encode(pixels, quality=90)
    with gate_process() as gate, GateClient(gate.target, timeout=60) as client:
        threads = [
            threading.Thread(target=lambda: [client.assess(image) for _ in range(6)])
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert gate.most_resident < 300 * MIB, f"{gate.most_resident / MIB:.0f} MiB"


def mutate(data: bytes, chance: random.Random) -> bytes:
    """Flip, cut, insert, double or overwrite a few bytes."""
    changed = bytearray(data)
    for _ in range(chance.randrange(1, 6)):
        place = chance.randrange(len(changed) + 1)
        match chance.randrange(6):
            case 0 if place < len(changed):
                changed[place] ^= 1 << chance.randrange(8)
            case 1:
                del changed[place : place + chance.randrange(1, 64)]
            case 2:
                changed[place:place] = chance.randbytes(chance.randrange(1, 32))
            case 3:
                changed[place:place] = changed[place : place + chance.randrange(1, 200)]
            case 4:
                changed = changed[:place]
            case _:
                changed[place : place + 4] = chance.choice(
                    [b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\xff\xd8\xff\xda"]
                )
        if not changed:
            break
    return bytes(changed)


def seeds() -> list[bytes]:
    """Small images of every format and variety that is read."""
    scene = draw(48, 36)
    image = Image.fromarray(scene)
    made = [encode(scene, quality=q) for q in (5, 50, 95)]
    made.append(encode(scene, progressive=True))
    made += [encode(scene, "PNG"), encode(scene, "WEBP"), encode(scene, "WEBP", lossless=True)]
    for mode, format_ in (("L", "JPEG"), ("CMYK", "JPEG"), ("P", "PNG"), ("RGBA", "PNG")):
        buffer = io.BytesIO()
        image.convert(mode).save(buffer, format_)
        made.append(buffer.getvalue())
    frames = io.BytesIO()
    image.save(frames, "WEBP", save_all=True, append_images=[image.rotate(90)] * 3)
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = io.BytesIO()
    image.save(turned, "JPEG", exif=exif)
    return [*made, frames.getvalue(), turned.getvalue()]


@pytest.mark.slow
def test_mutated_images_are_judged_or_refused_and_nothing_else(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """`pytest --mutations 50000 -k mutated` tries as many as one likes."""
    count = request.config.getoption("--mutations")
    chance, originals = random.Random(0), seeds()

    def images(number: int) -> Any:
        for n in range(number, count, 4):
            yield str(n), mutate(originals[n % len(originals)], chance)

    # A mutation may claim more pixels than its original; the allocator then keeps what it took.
    with gate_process(max_image_pixels=4_000_000) as gate:
        memory: list[int] = []
        outcomes: Counter[str] = Counter()

        def session(number: int) -> None:
            with GateClient(gate.target) as client:
                for n, (_, answer) in enumerate(client.assess_stream(images(number))):
                    known = isinstance(answer, Verdict | InputError)
                    outcomes["as promised" if known else repr(answer)] += 1
                    if number == 0 and n % 100 == 0:
                        memory.append(gate.resident)

        threads = [threading.Thread(target=session, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert outcomes == {"as promised": count}
        assert read_metric(gate, 'utility_gate_images_total{code="INTERNAL"') == 0
        assert memory[-1] - memory[len(memory) // 4] < 100 * MIB
        with GateClient(gate.target) as client:
            assert isinstance(client.assess(originals[0]), Verdict)


@pytest.mark.slow
def test_callers_that_never_finish_hold_up_nobody() -> None:
    """Half a greeting, half a header, half a request, on both ports, and then silence."""
    image = encode(draw(64, 48), quality=80)
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    with gate_process(workers=1) as gate, GateClient(gate.target, timeout=20) as client:
        grpc_host, _, grpc_port = gate.target.rpartition(":")
        web_port = gate.metrics.split(":")[2].split("/")[0]
        silent = []
        for number in range(150):
            port = int(grpc_port) if number % 3 else int(web_port)
            one = socket.create_connection((grpc_host, port), timeout=5)
            whole = preface + b"\0\0\0\4\0\0\0\0\0" + b"\0\0\x40\1\4\0\0\0\1"
            one.sendall(whole[: number % len(whole)] if number % 3 else b"GET /metr")
            silent.append(one)
        for _ in range(20):
            assert isinstance(client.assess(image), Verdict)
        assert read_metric(gate, "utility_gate_ready") == 1
        for one in silent:
            one.close()


@pytest.mark.slow
def test_a_half_closed_stream_is_answered_to_its_end() -> None:
    """The sender is done long before the reader begins to read."""
    image = slow_image()
    with gate_process(workers=1) as gate, GateClient(gate.target) as client:
        answers = client.assess_stream((str(n), image) for n in range(12))
        time.sleep(0.5)
        assert sorted(number for number, _ in answers) == sorted(map(str, range(12)))


@pytest.mark.parametrize("moment", ["serving", "starting"])
def test_a_watcher_that_takes_nothing_holds_up_neither_start_nor_end(
    start_gate: Callable[..., RunningGate], moment: str
) -> None:
    """Its window is shut, so that what is sent to it never goes out."""
    path = "/grpc.health.v1.Health/Watch"
    if moment == "starting":
        port = free_port()
        waiting = ThreadPoolExecutor(1).submit(_watch_when_open, port, path)
        gate = start_gate(port=port, grace_seconds=1)
        rude = waiting.result(10)
    else:
        gate = start_gate(grace_seconds=1)
        rude = open_call(gate.target, path, b"", window=0)
        time.sleep(0.3)
    with GateClient(gate.target) as client:
        assert isinstance(client.assess(encode(draw(64, 48))), Verdict)
    started = time.monotonic()
    gate.stop()
    assert time.monotonic() - started < 5
    rude.close()


def _watch_when_open(port: int, path: str) -> socket.socket:
    while True:
        try:
            return open_call(f"127.0.0.1:{port}", path, b"", window=0)
        except ConnectionRefusedError:
            time.sleep(0.005)


@pytest.mark.slow
def test_a_burst_of_thousands_is_answered_by_us_and_counted() -> None:
    """gRPC itself would cancel what it holds too many of, and count none of it."""
    image = encode(draw(64, 48), quality=80)
    with gate_process(workers=2, max_waiting=8) as gate:
        outcomes = asyncio.run(offer(gate.target, image, rate=1_000_000, seconds=0.004))
        assert set(outcomes) == {"OK", "RESOURCE_EXHAUSTED", "with RetryInfo"}
        assert outcomes["OK"] + outcomes["RESOURCE_EXHAUSTED"] == 4000
        counted = read_metric(gate, "utility_gate_requests_total{")
        assert counted == 4000
