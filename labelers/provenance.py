"""How a table was made, to the last parameter: what stands in its metadata and in the manifest."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from PIL import features

from labelers.config import LabelConfig
from labelers.detectors import MOST_DETECTIONS, SCORE_FLOOR
from labelers.networks import NetworkFacts
from labelers.truth import GroundTruth
from utility_gate.degrade import describe
from utility_gate.files import digest_json

PACKAGES = (
    "utility-gate", "numpy", "onnxruntime", "pillow", "pyarrow", "torch", "torchvision",
)  # fmt: skip
"""Whatever has a say in the numbers."""


def describe_job(
    config: LabelConfig, networks: Sequence[NetworkFacts], truth: GroundTruth
) -> dict[str, Any]:
    """Everything that decides the bytes of the tables, beside the images themselves. Two runs
    that agree in it make the same rows of the same images."""
    canonical = config.canonical()
    return {
        "task": config.task,
        "voters": [network.name for network in networks[: len(config.networks)]],
        "networks": {n.name: {"sha256": n.digest, **n.description} for n in networks},
        "reference": config.reference,
        "reference_score": config.reference_score,
        "rule": canonical["rule"],
        "degradations": [
            {
                "name": degradation.name,
                "parameters": degradation.parameters,
                "label": describe(degradation),
                "encoder": degradation.encoder(),
            }
            for degradation in config.degradations()
        ],
        "stored_detections": {"score_at_least": SCORE_FLOOR, "at_most": MOST_DETECTIONS},
        "decoder": {name: features.version(name) for name in ("jpg", "webp", "zlib")},
        "config": canonical,
        "config_sha256": digest_json(canonical),
        "truth_sha256": truth.digest,
        "categories": {str(number): name for number, name in truth.names.items()},
        "sources": len(truth.rows),
        "test_fraction": config.test_fraction,
        "packages": {name: _version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "machine": platform.machine(),
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
