"""What becomes of photographs that are compressed as far as `utility-gate suggest` says.

    python -m benchmarks.suggest TRUTH.csv DIR NETWORKS.toml NAME [LIMIT]

Held-out photographs that are useful as they came are sent as they are, at fixed JPEG qualities, and
as suggested, also by a ladder that goes on below where ours ends: bytes, and how often an ImageNet
classifier is right, each beside the same photographs as they came.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from labelers.images import ImageBatch
from labelers.networks import Classifier, open_network
from utility_gate.images import decode
from utility_gate.predictor import UtilityPredictor
from utility_gate.suggest import LADDER, compress, suggest
from utility_gate.value.job import choose, read_labels

FIXED = (90, 75, 50, 20)
KEPT = (0.9, 0.99)
"""Utilities to keep, beside the predictor's own threshold."""

LADDERS = {"": LADDER, ", down to 5": (*LADDER, 10, 5)}
DRAWS = 1000
_AS_IT_CAME = "as it came"


@dataclass(frozen=True, slots=True)
class Sent:
    """One photograph sent in one way: its quality (0: as it came), its bytes, those at quality 90,
    and whether the classifier was right about it, and about it as it came."""

    quality: int
    size: int
    size_90: int
    right: bool
    right_before: bool


def main() -> None:
    """Print a table, a row for each way to send the photographs."""
    table, folder, specs, name, *limit = sys.argv[1:]
    network = open_network(name, Path(specs))
    assert isinstance(network, Classifier)
    predictor = UtilityPredictor.load()
    labelled = read_labels(Path(table), Path(folder), ("class_index",))
    sent: dict[str, list[Sent]] = {}
    seconds, runs = [], []
    for photograph in choose(labelled, "test", int(limit[0]) if limit else 0):
        data = photograph.path.read_bytes()
        ways = {f"quality {quality}": quality for quality in FIXED}
        for utility in (predictor.card.thresholds.useful, *KEPT):
            for beyond, ladder in LADDERS.items():
                started = time.thread_time()
                found = suggest(predictor, data, utility=utility, qualities=ladder)
                if found.chosen is None:
                    break  # nor by the other
                ways[f"suggested, from utility {utility:.2f}{beyond}"] = found.chosen.quality
                if ladder is LADDER:
                    seconds.append(time.thread_time() - started)
                    runs.append(1 + len(found.curve))
        if len(ways) == len(FIXED):
            continue
        files = {quality: compress(data, quality) for quality in {*ways.values(), 90}}
        right = {quality: is_right(network, file, photograph.label)
                 for quality, file in files.items()}  # fmt: skip
        before = is_right(network, data, photograph.label)
        ninety = len(files[90])
        sent.setdefault(_AS_IT_CAME, []).append(Sent(0, len(data), ninety, before, before))
        for way, quality in ways.items():
            sent.setdefault(way, []).append(
                Sent(quality, len(files[quality]), ninety, right[quality], before)
            )
    print(f"A suggestion takes {statistics.mean(runs):.1f} judgements and "
          f"{1000 * statistics.median(seconds):.0f} ms of CPU time.\n")  # fmt: skip
    print(f"| sent | photographs | median quality | mean kB | of quality 90 | {network.name} right "
          "| as they came |  |\n|---|---|---|---|---|---|---|---|")  # fmt: skip
    for way, its in sent.items():
        print(row(way, its))


def is_right(network: Classifier, image: bytes, label: str) -> bool:
    """Whether the classifier's first guess is the label."""
    inputs = network.prepare(ImageBatch([decode(image).pixels]))
    return str(int(network.forward(inputs)[0].argmax())) == label


def row(way: str, sent: Sequence[Sent]) -> str:
    """One line of the table."""
    right = np.array([each.right for each in sent], float)
    before = np.array([each.right_before for each in sent], float)
    random = np.random.default_rng(0)
    drawn = (right - before)[random.integers(0, len(sent), (DRAWS, len(sent)))].mean(1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    quality = f"{statistics.median(each.quality for each in sent):.0f}"
    change = f"{100 * low:+.1f} to {100 * high:+.1f} points"
    if way == _AS_IT_CAME:
        quality, change = "-", ""
    share = sum(each.size for each in sent) / sum(each.size_90 for each in sent)
    return (
        f"| {way} | {len(sent)} | {quality} | "
        f"{statistics.mean(each.size for each in sent) / 1000:.1f} | {share:.0%} | "
        f"{right.mean():.1%} | {before.mean():.1%} | {change} |"
    )


if __name__ == "__main__":
    main()
