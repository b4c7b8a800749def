"""Fixtures: drawn photographs, a tiny predictor, a real server on loopback."""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from server.app import GateServer
from server.settings import GateSettings
from serving.app import ServiceServer
from tests.networks import pooled_network
from tests.processes import free_port
from utility_gate.checkpoint import Card, ConformanceVector, Weights, save_card
from utility_gate.client import GateClient
from utility_gate.files import digest_bytes
from utility_gate.preprocess import Preprocess
from utility_gate.types import Thresholds


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--mutations", type=int, default=4000, help="damaged images to try on a served gate"
    )


def draw(width: int = 320, height: int = 240, seed: int = 0) -> np.ndarray:
    """A photograph-like scene: gradients, shapes, texture; HWC uint8 RGB."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    scene = np.stack([x * 255 / width, y * 255 / height, (x + y) % 256], axis=-1)
    for _ in range(12):
        cx, cy, r = random.integers(width), random.integers(height), random.integers(8, 60)
        scene[(x - cx) ** 2 + (y - cy) ** 2 < r * r] = random.integers(0, 256, 3)
    scene += random.normal(0, 6, scene.shape)
    return scene.clip(0, 255).astype(np.uint8)


def encode(pixels: np.ndarray, format: str = "JPEG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format, **options)
    return buffer.getvalue()


@pytest.fixture(scope="session")
def photo() -> np.ndarray:
    return draw()


@pytest.fixture(scope="session")
def jpeg(photo: np.ndarray) -> bytes:
    return encode(photo, quality=90)


def brightness_network() -> bytes:
    """An ONNX network whose useful logit is mean red: bright images are useful."""
    weight = np.array([[0, 1], [0, 0], [0, 0]])
    return pooled_network(weight, np.zeros(2), 32, name="images")


def save_brightness_predictor(folder: Path, **changes: Any) -> Path:
    """A whole checkpoint around `brightness_network`; utility rises with the image's red."""
    import base64

    folder.mkdir(parents=True, exist_ok=True)
    weights = brightness_network()
    (folder / "model.onnx").write_bytes(weights)
    gray = encode(np.full((64, 64, 3), 128, np.uint8), "PNG")
    values: dict[str, Any] = {
        "name": "brightness",
        "version": "7",
        "task": "general",
        "weights": Weights(file="model.onnx", sha256=digest_bytes(weights)),
        "preprocess": Preprocess(resize=32, crop=32, mean=(128,) * 3, std=(32,) * 3),
        "scale_to": 64,
        "min_side": 16,
        "temperature": 1.0,
        "thresholds": Thresholds(useful=0.6, review=0.4),
        "conformance": (
            ConformanceVector(image=base64.b64encode(gray).decode(), utility=0.5, tolerance=0.01),
        ),
    }
    save_card(Card(**(values | changes)), folder)
    return folder


@pytest.fixture(scope="session")
def brightness_predictor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_brightness_predictor(tmp_path_factory.mktemp("brightness"))


class RunningService:
    """A server in a thread with an event loop of its own."""

    def __init__(self, server: ServiceServer[Any]) -> None:
        self.server = server
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.call(self.server.start())

    def call(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.server.port}"

    @property
    def web(self) -> str:
        return f"http://127.0.0.1:{self.server.web_port}"

    def metric(self, name: str, **labels: str) -> float:
        return self.server.metrics.registry.get_sample_value(name, labels) or 0.0

    def stop(self) -> None:
        if self._loop.is_closed():
            return
        self.call(self.server.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


class RunningGate(RunningService):
    """A `GateServer`, running."""

    server: GateServer

    def __init__(self, settings: GateSettings) -> None:
        super().__init__(GateServer(settings))


@pytest.fixture
def start_gate(brightness_predictor: Path) -> Iterator[Callable[..., RunningGate]]:
    """Starts real gates on free loopback ports with the tiny predictor; stops them all."""
    running: list[RunningGate] = []

    def start(**changes: Any) -> RunningGate:
        values: dict[str, Any] = {
            "port": 0,
            "web_port": 0,
            "workers": 2,
            "drain_seconds": 0,
            "predictors": {"general": str(brightness_predictor)},
        }
        running.append(RunningGate(GateSettings(**(values | changes))))
        return running[-1]

    yield start
    for gate in running:
        gate.stop()


@dataclass(frozen=True)
class ColdGate:
    """A gate that listens at `target` and loads until `warm_up`, which returns it started."""

    target: str
    warm_up: Callable[[], RunningGate]


@pytest.fixture
def cold_gate(
    start_gate: Callable[..., RunningGate], monkeypatch: pytest.MonkeyPatch
) -> Iterator[ColdGate]:
    loading, go_on = threading.Event(), threading.Event()
    load = GateServer._load

    def slow(server: GateServer) -> object:
        loading.set()
        assert go_on.wait(20)
        return load(server)

    monkeypatch.setattr(GateServer, "_load", slow)
    with ThreadPoolExecutor(1) as pool:
        port = free_port()
        starting = pool.submit(start_gate, port=port)
        assert loading.wait(10)

        def warm_up() -> RunningGate:
            go_on.set()
            return starting.result(20)

        yield ColdGate(f"127.0.0.1:{port}", warm_up)
        go_on.set()


@pytest.fixture
def gate(start_gate: Callable[..., RunningGate]) -> RunningGate:
    return start_gate()


@pytest.fixture
def client(gate: RunningGate) -> Iterator[GateClient]:
    with GateClient(gate.target) as client:
        yield client
