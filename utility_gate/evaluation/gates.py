"""The trivial gates: what anyone could put in front of a network without training anything.

(a) a threshold on the JPEG quality read from the file's quantisation tables; (b) one on a small
ready-made classifier's own top-1 probability; (c) one on BRISQUE. Their thresholds are the best
ones for the training side of a table; the predictor's is 1/2 of its calibrated utility.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from utility_gate.degrade import OWN_COPIES
from utility_gate.errors import TableError
from utility_gate.evaluation.scores import Flags, Floats
from utility_gate.images import decode
from utility_gate.measure import estimate_jpeg_quality
from utility_gate.tables import read_metadata, read_observations

QUALITY = "(a) JPEG quality in the file"
BRISQUE = "(c) BRISQUE"

PREDICTOR_THRESHOLD = 0.5
"""A predictor calls a copy useful from this utility on."""


def confidence_name(reference: str) -> str:
    """The name of gate (b) in tables."""
    return f"(b) confidence of {reference}"


def file_quality(data: bytes) -> float:
    """The score of gate (a): the libjpeg quality, 1-100, of an encoded image; 100 for one that is
    no JPEG."""
    table = decode(data, OWN_COPIES, scale_to=1).luma_quantization
    return float(estimate_jpeg_quality(table)) if table else 100.0


def reference_confidence(files: Sequence[Path], reference: str) -> dict[str, float]:
    """The score of gate (b): the reference's top-1 probability by the SHA-256 of a copy, from every
    table of observations that has it.

    Raises:
        TableError: if a table holds no classifiers' observations, or none knows the reference.
    """
    found: dict[str, float] = {}
    names: set[str] = set()
    weights: set[str] = set()
    for file in files:
        if read_metadata(file).get("task", "classification") != "classification":
            raise TableError(f"{file}: expected observations of classifiers for a reference")
        table, _ = read_observations(file, ["network", "network_digest", "image_digest", "top1"])
        own = table.filter(pc.equal(table["network"].cast("string"), reference))
        weights.update(pc.unique(own["network_digest"].cast("string")).to_pylist())
        names.update(pc.unique(table["network"].cast("string")).to_pylist())
        found |= zip(own["image_digest"].to_pylist(), own["top1"].to_pylist(), strict=True)
    where = ", ".join(str(file) for file in files)
    if len(weights) > 1:
        raise TableError(f"{where}: expected {reference} with the same weights in all, got others")
    if not found:
        raise TableError(f"{where}: expected one of {sorted(names)}, got {reference!r}")
    return found


def top_share(scores: Floats, count: int, seed: int = 0) -> Flags:
    """Which `count` of N copies a gate lets pass that goes by these scores (N,), highest first.
    Equal scores are taken in an order that the seed shuffles."""
    shuffled = np.random.default_rng(seed).permutation(len(scores))
    order = shuffled[np.argsort(-scores[shuffled], kind="stable")]
    passes = np.zeros(len(scores), np.bool_)
    passes[order[:count]] = True
    return passes
