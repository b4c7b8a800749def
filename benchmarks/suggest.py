"""What becomes of photographs that are compressed as far as `utility-gate suggest` says.

    python -m benchmarks.suggest TRUTH.csv DIR NETWORKS.toml NAME [LIMIT]

Held-out photographs that are useful as they came are sent as they are, at fixed JPEG qualities, and
as suggested: bytes, and what an ImageNet classifier that had no part in it makes of them.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

import numpy as np

from labelers.images import ImageBatch
from labelers.networks import Classifier, open_network
from utility_gate.images import decode
from utility_gate.predictor import UtilityPredictor
from utility_gate.suggest import compress, suggest
from utility_gate.value.job import choose, read_labels

FIXED = (90, 75, 50)

STRICTER = (0.9, 0.99)
"""Utilities to keep in place of the predictor's own threshold."""

DRAWS = 1000


def main() -> None:
    """Print a table, a row for each way to send the photographs."""
    table, folder, specs, name, *limit = sys.argv[1:]
    network = open_network(name, Path(specs))
    assert isinstance(network, Classifier)
    predictor = UtilityPredictor.load()
    labelled = read_labels(Path(table), Path(folder), ("class_index",))
    kept = {f"suggested, from utility {u:.2f}": u
            for u in (predictor.card.thresholds.useful, *STRICTER)}  # fmt: skip
    names = ["as it came", *(f"quality {q}" for q in FIXED), *kept]
    sizes: dict[str, list[int]] = {each: [] for each in names}
    right: dict[str, list[bool]] = {each: [] for each in names}
    qualities: dict[str, list[int]] = {each: [] for each in kept}
    seconds, runs, left_out = [], [], 0
    for photograph in choose(labelled, "test", int(limit[0]) if limit else 0):
        data = photograph.path.read_bytes()
        chosen: dict[str, int] = {}
        for each, utility in kept.items():
            started = time.thread_time()
            found = suggest(predictor, data, utility=utility)
            if found.chosen is not None:
                chosen[each] = found.chosen.quality
                seconds.append(time.thread_time() - started)
                runs.append(1 + len(found.curve))
        if len(chosen) < len(kept):
            left_out += 1
            continue
        files = [data, *(compress(data, quality) for quality in (*FIXED, *chosen.values()))]
        for each, file in zip(names, files, strict=True):
            inputs = network.prepare(ImageBatch([decode(file).pixels]))
            best = int(network.forward(inputs)[0].argmax())
            sizes[each].append(len(file))
            right[each].append(str(best) == photograph.label)
        for each, quality in chosen.items():
            qualities[each].append(quality)
    print(f"{len(sizes[names[0]])} photographs; {left_out} others have not all three suggestions. "
          f"One takes {statistics.mean(runs):.1f} judgements and "
          f"{1000 * statistics.median(seconds):.0f} ms of CPU time.\n")  # fmt: skip
    print(f"| sent | median quality | mean kB | of quality 90 | {network.name} right | change |")
    print("|---|---|---|---|---|---|")
    for each in names:
        quality = f"{statistics.median(qualities[each]):.0f}" if each in qualities else "-"
        share = sum(sizes[each]) / sum(sizes["quality 90"])
        low, high = interval(right[each], right[names[0]])
        change = "" if each == names[0] else f"{100 * low:+.1f} to {100 * high:+.1f} points"
        print(f"| {each} | {quality} | {statistics.mean(sizes[each]) / 1000:.1f} | {share:.0%} | "
              f"{np.mean(right[each]):.1%} | {change} |")  # fmt: skip


def interval(one: list[bool], other: list[bool]) -> tuple[float, float]:
    """95 % of the resampled sets put the difference of the shares between these."""
    difference = np.asarray(one, float) - np.asarray(other, float)
    random = np.random.default_rng(0)
    drawn = difference[random.integers(0, len(difference), (DRAWS, len(difference)))].mean(1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)


if __name__ == "__main__":
    main()
