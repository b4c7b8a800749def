"""Counts of labels, as `label` and `relabel` print them."""

from __future__ import annotations

from collections import Counter

import pyarrow as pa

from utility_gate.degrade import describe, from_json


def print_counts(labels: pa.Table) -> None:
    """One line per degradation, in the order of the table."""
    columns = [labels[name].to_pylist() for name in ("degradation", "parameters", "label")]
    counts = Counter(zip(*columns, strict=True))
    rows = {(name, parameters): None for name, parameters, _ in counts}
    width = max([len(_describe(*row)) for row in rows] + [len("copy")])
    print(f"{'copy':<{width}} {'useful':>8} {'non-useful':>11} {'undecided':>10}")
    for name, parameters in rows:
        useful, non_useful, undecided = (counts[name, parameters, value] for value in (1, 0, None))
        text = _describe(name, parameters)
        print(f"{text:<{width}} {useful:>8} {non_useful:>11} {undecided:>10}")


def _describe(name: str, parameters: str) -> str:
    return describe(from_json(name, parameters))
