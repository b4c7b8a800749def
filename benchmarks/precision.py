"""A predictor in fp32 and in int8, side by side in one process and in one thread.

    python -m benchmarks.precision [--predictor DIR] [--rounds N]

Both judge the same drawn photographs of 640x480, in turns: the network alone, then the whole way
from JPEG to utility. Times are CPU times of the one thread that does it all, so that what else the
machine does counts as little as it can. Where the card has no int8 weights, they are made here from
the same photographs: as fast as real ones, not as good.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime as ort

from utility_gate import checkpoint
from utility_gate.degrade import Jpeg
from utility_gate.images import Pixels
from utility_gate.networks import open_session
from utility_gate.predictor import (
    EMBEDDED,
    UtilityPredictor,
    checkpoint_folder,
    to_utility,
)

SIZE = (640, 480)
QUALITY = 85
PHOTOGRAPHS = 8
ROUNDS = 40


def draw(seed: int) -> Pixels:
    """A scene of 640x480: a gradient, thirty discs, and noise at three scales."""
    random = np.random.default_rng(seed)
    width, height = SIZE
    y, x = np.mgrid[0:height, 0:width]
    scene = np.stack([255 * x / width, 255 * y / height, (x + y) / 5], axis=-1)
    for _ in range(30):
        cx, cy, radius = random.integers(width), random.integers(height), random.integers(8, 90)
        scene[(x - cx) ** 2 + (y - cy) ** 2 < radius**2] = random.integers(0, 256, 3)
    for step in (1, 4, 16):
        grain = random.normal(0, 8, (height // step, width // step, 3))
        scene += grain.repeat(step, axis=0).repeat(step, axis=1)
    return scene.clip(0, 255).astype(np.uint8)


def sessions(
    folder: Path, predictor: UtilityPredictor, crops: Pixels
) -> list[ort.InferenceSession]:
    """The network in fp32 and in int8, one thread each."""
    card, fp32 = checkpoint.load(folder)
    if card.quantized is not None:
        _, int8 = checkpoint.load(folder, "int8")
    else:
        from utility_gate.training.quantize import quantize_onnx

        print("The card has no int8 weights: made from the benchmark's own photographs.\n")
        batches = [predictor.card.preprocess.normalize(crop[np.newaxis]) for crop in crops]
        int8 = quantize_onnx(fp32, batches)
    return [open_session(weights) for weights in (fp32, int8)]


def in_turns(runs: list[Callable[[int], object]], rounds: int) -> list[list[float]]:
    """CPU milliseconds of each of `runs` on photograph 0, 1, ..., one after the other."""
    times: list[list[float]] = [[] for _ in runs]
    for number in range(-2, rounds):
        for own, run in zip(times, runs, strict=True):
            started = time.thread_time()
            run(number % PHOTOGRAPHS)
            if number >= 0:  # before that they warm up
                own.append(1000 * (time.thread_time() - started))
    return times


def row(name: str, fp32: list[float], int8: list[float]) -> str:
    """One line of the table. The ratio is that of neighbouring turns, in the median."""
    ratio = statistics.median(b / a for a, b in zip(fp32, int8, strict=True))
    a, b = statistics.median(fp32), statistics.median(int8)
    return f"| {name} | {a:.2f} | {b:.2f} | {ratio:.2f} | {min(int8) / min(fp32):.2f} |"


def main() -> None:
    """Print a table: medians, and what int8 takes of fp32's time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--predictor", default=EMBEDDED, metavar="DIR")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    with checkpoint_folder(options.predictor) as folder:
        compare(folder, options.rounds)


def compare(folder: Path, rounds: int) -> None:
    """Print the table of one checkpoint."""
    predictor = UtilityPredictor.load(folder)
    files = [Jpeg(QUALITY).apply(draw(seed)) for seed in range(PHOTOGRAPHS)]
    crops = np.stack([predictor.crop(predictor.decode(file)) for file in files])
    inputs = [predictor.card.preprocess.normalize(crop[np.newaxis]) for crop in crops]
    both = sessions(folder, predictor, crops)
    name = both[0].get_inputs()[0].name

    def network(session: ort.InferenceSession) -> Callable[[int], object]:
        return lambda number: session.run(None, {name: inputs[number]})

    def whole(session: ort.InferenceSession) -> Callable[[int], object]:
        def judge(number: int) -> object:
            crop = predictor.crop(predictor.decode(files[number]))
            batch = predictor.card.preprocess.normalize(crop[np.newaxis])
            (logits,) = session.run(None, {name: batch})
            return to_utility(np.asarray(logits, np.float64), predictor.card.temperature)

        return judge

    card = predictor.card
    print(f"{card.name} {card.version}, one thread, {rounds} rounds of both in turns\n")
    print("| 640x480 JPEG | fp32, ms | int8, ms | int8 / fp32 | of the fastest |")
    print("|---|---|---|---|---|")
    for title, way in (("network alone", network), ("decode, crop, network", whole)):
        fp32, int8 = in_turns([way(session) for session in both], rounds)
        print(row(title, fp32, int8))


if __name__ == "__main__":
    main()
