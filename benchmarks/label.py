"""Labelling against its own ceiling: the networks' forward passes and nothing else.

Run with `make bench`: three architectures of torchvision's with random weights, exported to ONNX,
on photographs of scikit-image: JPEG at nine qualities of 500x375, and blur, noise and messengers of
1600x1200, whose lossless copies cost far more to make. With your own networks:

    python -m benchmarks.label --networks networks.toml --names inception_v3 resnet50 mobilenet_v1

The job (decode, copies, resize, all networks, rules, Parquet) and the ceiling (the same
batches, made beforehand) run alternately, in as many processes.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
BATCHES = 2
"""Sources per process of which the ceiling's batches are made; repeated, as memory is finite."""
ROUNDS = 3
OBSERVATIONS_TO_RELABEL = 100_000


@dataclass(frozen=True, slots=True)
class Case:
    """So many photographs of a size, degraded so."""

    name: str
    size: tuple[int, int]
    sources: int
    degrade: dict[str, Any]


CASES = (
    Case("nine JPEG qualities, 500x375", (500, 375), 48, {}),
    Case(
        "blur, noise, messenger, 1600x1200",
        (1600, 1200),
        12,
        {
            "degrade": tuple(
                {"kind": kind, "severity": [1, 3, 5]}
                for kind in ("motion_blur", "sensor_noise", "messenger")
            )
        },
    ),
)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", type=Path, help="your own networks, TOML")
    parser.add_argument("--names", nargs="+", default=list(ARCHITECTURES))
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        networks = options.networks or export_networks(Path(folder), options.names)
        print(f"{', '.join(options.names)}; {options.workers} processes")
        for number, case in enumerate(CASES):
            place = Path(folder) / str(number)
            measure_labelling(place, case, networks, tuple(options.names), options.workers)
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


def save_photographs(images: Path, case: Case) -> None:
    """The case's JPEG photographs."""
    images.mkdir(parents=True)
    for number in range(case.sources):
        pixels = np.asarray(getattr(data, PHOTOGRAPHS[number % len(PHOTOGRAPHS)])())[..., :3]
        turned = np.ascontiguousarray(np.rot90(pixels, 2 * (number // len(PHOTOGRAPHS) % 2)))
        picture = Image.fromarray(turned).resize(case.size, Image.Resampling.LANCZOS)
        picture.save(images / f"{number:03d}.jpg", quality=90 + number % 9)


def measure_labelling(
    folder: Path, case: Case, networks: Path, names: tuple[str, ...], workers: int
) -> None:
    """The job's time beyond the networks' own."""
    images = folder / "images"
    save_photographs(images, case)
    config = make_label_config({"networks": names, "reference": "pristine", **case.degrade})
    spec = ObserverSpec(config, images, networks)
    ratios, jobs, ceilings = [], [], []
    for number in range(ROUNDS):
        out = folder / f"out{number}"
        job = LabelJob(config, images, out, networks_file=networks, workers=workers)
        jobs.append(time_job(job, case.sources))
        ceilings.append(time_forward(spec, case.sources, workers))
        ratios.append(jobs[-1] / ceilings[-1])
    beyond = 100 * (statistics.median(ratios) - 1)
    print(
        f"{case.name}: job {statistics.median(jobs):.1f} s, networks alone "
        f"{statistics.median(ceilings):.1f} s, beyond {beyond:.1f} % (medians of {ROUNDS} rounds, "
        f"{case.sources} sources)"
    )


def time_job(job: LabelJob, sources: int) -> float:
    """Seconds of the whole job without the start of the processes, which open their networks
    first: a few seconds, once."""
    marks: list[float] = []

    def progress(done: int, _total: int) -> None:
        if done > 0:
            marks.append(time.perf_counter())

    run(job, progress)
    ended = time.perf_counter()
    # When the first outcome comes, every worker is at the end of its first source.
    return (ended - marks[0]) * sources / (sources - job.workers)


def time_forward(spec: ObserverSpec, sources: int, workers: int) -> float:
    """Seconds of the forward passes of all sources, spread over as many processes."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        share = -(-sources // workers)
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
