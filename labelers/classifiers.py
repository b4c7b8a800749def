"""Softmax probabilities to observations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from labelers.networks import Probabilities
from labelers.truth import check_class
from utility_gate.errors import NetworkError
from utility_gate.types import Observation


@dataclass(frozen=True, slots=True)
class Source:
    """A pristine image with its true class: `path` as in the table, digest of the file."""

    path: str
    digest: str
    true_class: int


@dataclass(frozen=True, slots=True)
class Copy:
    """One copy of a source as the networks saw it; `quality` None is the source itself."""

    degradation: str
    quality: int | None
    digest: str


def to_observations(
    source: Source,
    copies: list[Copy],
    network: str,
    network_digest: str,
    probabilities: Probabilities,
) -> list[Observation]:
    """One observation per copy from the rows of `probabilities` (copies, classes).

    Raises:
        NetworkError: if a row is no probability distribution.
        TableError: if the true class is none of the network's.
    """
    check_class(source.path, source.true_class, network, probabilities.shape[1])
    if not np.isfinite(probabilities).all():
        raise NetworkError(f"{network}: expected finite probabilities for {source.path}")
    predicted = probabilities.argmax(axis=1)
    return [
        Observation(
            source=source.path,
            source_digest=source.digest,
            degradation=copy.degradation,
            quality=copy.quality,
            image_digest=copy.digest,
            network=network,
            network_digest=network_digest,
            true_class=source.true_class,
            predicted_class=int(best),
            top1=min(float(row[best]), 1.0),
            ccsp=min(float(row[source.true_class]), 1.0),
        )
        for copy, row, best in zip(copies, probabilities, predicted, strict=True)
    ]
