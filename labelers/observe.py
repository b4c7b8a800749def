"""One source image through the ladder and past every network; no engine, no tables."""

from __future__ import annotations

from collections.abc import Sequence

from labelers.classifiers import Copy, Source, to_observations
from labelers.networks import Classifier
from utility_gate.degrade import PRISTINE, Jpeg
from utility_gate.images import DecodeLimits, Pixels, decode
from utility_gate.split import digest_bytes
from utility_gate.types import Observation


def observe_source(
    path: str,
    data: bytes,
    true_class: int,
    degradations: Sequence[Jpeg],
    networks: Sequence[Classifier],
    limits: DecodeLimits | None = None,
) -> list[Observation]:
    """Observations of the pristine image and of each degraded copy by each network.

    Every copy is encoded once and decoded once, and shared by the networks.

    Raises:
        ImageError: if `data` is no image.
        NetworkError: if a network's output is unusable.
        TableError: if `true_class` is none of a network's classes.
    """
    source = Source(path, digest_bytes(data), true_class)
    pristine = decode(data, limits).pixels
    copies = [Copy(PRISTINE, None, source.digest)]
    images: list[Pixels] = [pristine]
    for degradation in degradations:
        encoded = degradation.apply(pristine)
        copies.append(Copy(degradation.name, degradation.quality, digest_bytes(encoded)))
        images.append(decode(encoded, limits).pixels)
    return [
        observation
        for network in networks
        for observation in to_observations(
            source, copies, network.name, network.digest, network.probabilities(images)
        )
    ]
