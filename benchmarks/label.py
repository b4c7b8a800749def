"""Labelling against its own ceiling: the networks' forward passes and nothing else.

Run with `make bench`: three architectures of torchvision's with random weights, exported to ONNX,
on photographs of scikit-image scaled to 500x375. With your own networks:

    python -m benchmarks.label --networks networks.toml --names inception_v3 resnet50 mobilenet_v1

The job (decode, nine copies, encode, decode, resize, all networks, rules, Parquet) and the ceiling
(the same batches, made beforehand) run alternately, in as many processes.
"""

from __future__ import annotations

import argparse
import dataclasses
import multiprocessing
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image
from skimage import data

from labelers.config import make_label_config
from labelers.images import ImageBatch
from labelers.job import LabelJob
from labelers.observe import ObserverSpec, open_networks
from labelers.relabel import relabel
from labelers.run import run
from labelers.store import OBSERVATIONS
from utility_gate.degrade import Jpeg, to_json
from utility_gate.images import decode
from utility_gate.tables import CLASSIFICATION_SCHEMA, write_table

ARCHITECTURES = ("resnet50", "densenet121", "mobilenet_v2")
PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket", "cat", "hubble_deep_field")
SIZE = (500, 375)
SOURCES = 48
BATCHES = 4
"""Sources per process of which the ceiling's batches are made; repeated, as memory is finite."""
ROUNDS = 3
OBSERVATIONS_TO_RELABEL = 100_000


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", type=Path, help="your own networks, TOML")
    parser.add_argument("--names", nargs="+", default=list(ARCHITECTURES))
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        networks = options.networks or export_networks(Path(folder), options.names)
        measure_labelling(Path(folder), networks, tuple(options.names), options.workers)
        measure_relabelling(Path(folder))


def export_networks(folder: Path, names: list[str]) -> Path:
    """ONNX files of torchvision's architectures, weights drawn at random, and their entries."""
    import torch
    import torchvision

    torch.manual_seed(0)
    entries = []
    for name in names:
        model = torchvision.models.get_model(name, weights=None).eval()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                model, (torch.zeros(1, 3, 224, 224),), str(folder / f"{name}.onnx"),
                dynamo=True, external_data=False, verbose=False,
                dynamic_shapes=({0: torch.export.Dim("n")},),
            )  # fmt: skip
        entries.append(f'[{name}]\nfile = "{name}.onnx"\ninput = 224\nresize = 256\n')
    path = folder / "networks.toml"
    path.write_text("\n".join(entries))
    return path


def save_photographs(folder: Path) -> tuple[Path, Path]:
    """`SOURCES` JPEG photographs and their truth table."""
    images = folder / "images"
    images.mkdir()
    lines = ["path,class_index"]
    for number in range(SOURCES):
        pixels = np.asarray(getattr(data, PHOTOGRAPHS[number % len(PHOTOGRAPHS)])())[..., :3]
        turned = np.ascontiguousarray(np.rot90(pixels, 2 * (number // len(PHOTOGRAPHS) % 2)))
        picture = Image.fromarray(turned).resize(SIZE, Image.Resampling.LANCZOS)
        picture.save(images / f"{number:03d}.jpg", quality=90 + number % 9)
        lines.append(f"{number:03d}.jpg,{number % 10}")
    truth = folder / "truth.csv"
    truth.write_text("\n".join(lines))
    return images, truth


def measure_labelling(folder: Path, networks: Path, names: tuple[str, ...], workers: int) -> None:
    """The job's time beyond the networks' own."""
    images, truth = save_photographs(folder)
    job = LabelJob(
        config=make_label_config({"networks": names}), images=images, out=folder / "out",
        truth=truth, networks_file=networks, workers=workers,
    )  # fmt: skip
    spec = ObserverSpec(job.config, images, networks)
    ratios, jobs, ceilings = [], [], []
    for number in range(ROUNDS):
        jobs.append(time_job(dataclasses.replace(job, out=folder / f"out{number}")))
        ceilings.append(time_forward(spec, workers))
        ratios.append(jobs[-1] / ceilings[-1])
    print(f"{', '.join(names)}; {SOURCES} sources x 10 copies, {workers} processes")
    print(f"job      {statistics.median(jobs):6.1f} s")
    print(f"forward  {statistics.median(ceilings):6.1f} s, the networks alone")
    beyond = statistics.median(ratios) - 1
    print(f"beyond   {100 * beyond:6.1f} % of the networks' own time, median of {ROUNDS} rounds")


def time_job(job: LabelJob) -> float:
    """Seconds from the first source handed out to the last table written, without the start of
    the processes (they open their networks first: a few seconds, once)."""
    marks: list[float] = []

    def progress(done: int, _total: int) -> None:
        if done > 0:
            marks.append(time.perf_counter())

    run(job, progress)
    ended = time.perf_counter()
    # The first outcome marks the end of the first source; each worker had one in hand.
    return (ended - marks[0]) * SOURCES / (SOURCES - 1)


def time_forward(spec: ObserverSpec, workers: int) -> float:
    """Seconds of the forward passes of all sources, spread over as many processes."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        share = -(-SOURCES // workers)
        barrier = context.Manager().Barrier(workers)
        parts = [pool.submit(_forward, spec, share, n, barrier) for n in range(workers)]
        return max(part.result() for part in parts)


def _forward(spec: ObserverSpec, sources: int, worker: int, barrier: object) -> float:
    import torch

    torch.set_num_threads(1)
    networks = open_networks(spec.config, spec.networks_file)
    degradations = spec.config.degradations()
    files = sorted(spec.images.iterdir())[worker * BATCHES : (worker + 1) * BATCHES]

    def copies(file: Path) -> Iterator[np.ndarray]:
        pixels = decode(file.read_bytes()).pixels
        yield pixels
        yield from (one.alter(pixels) for one in degradations)

    batches = [ImageBatch(list(copies(file))) for file in files]
    inputs = [[network.prepare(batch) for batch in batches] for network in networks]
    for network, own in zip(networks, inputs, strict=True):
        network.forward(own[0])
    barrier.wait()  # type: ignore[attr-defined]
    started = time.perf_counter()
    for number in range(sources):
        for network, own in zip(networks, inputs, strict=True):
            network.forward(own[number % len(own)])
    return time.perf_counter() - started


def measure_relabelling(folder: Path) -> None:
    """New thresholds on stored observations, from reading the table to writing the labels."""
    random = np.random.default_rng(0)
    copies = [("none", "{}", None)] + [("jpeg", to_json(Jpeg(q)), q) for q in range(90, 0, -10)]
    networks = ("a", "b", "c")
    count = OBSERVATIONS_TO_RELABEL // 30 * 30
    number = np.arange(count)
    source, network, copy = number // 30, number // 10 % 3, number % 10
    columns = {
        "source": [f"{n}.jpg" for n in source],
        "source_digest": [f"{n:064x}" for n in source],
        "augmentation": [""] * count,
        "degradation": [copies[c][0] for c in copy],
        "parameters": [copies[c][1] for c in copy],
        "quality": [copies[c][2] for c in copy],
        "image_digest": [f"{n:064x}" for n in source * 10 + copy],
        "network": [networks[n] for n in network],
        "network_digest": ["0" * 64] * count,
        "true_class": np.zeros(count, np.int32),
        "predicted_class": (random.random(count) < copy / 10).astype(np.int32),
        "top1": random.random(count),
        "ccsp": random.random(count),
    }
    metadata = {
        "task": "classification", "voters": list(networks), "networks": dict.fromkeys(networks),
        "rule": {"name": "ccsp"}, "reference": "truth", "reference_score": 0.5,
    }  # fmt: skip
    table = pa.table(columns).cast(CLASSIFICATION_SCHEMA)
    write_table(table, folder / "stored" / OBSERVATIONS, metadata)
    started = time.perf_counter()
    labels = relabel(folder / "stored", folder / "new.parquet", {"t_high": 0.8, "t_low": 0.2})
    seconds = time.perf_counter() - started
    print(f"relabel  {count} observations to {len(labels)} labels in {seconds:.2f} s")


if __name__ == "__main__":
    main()
