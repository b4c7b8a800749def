"""Classifiers: softmax probabilities to observations."""

from __future__ import annotations

import time

import numpy as np

from labelers.images import ImageBatch
from labelers.networks import Classifier, Probabilities
from labelers.truth import Truth, check_class
from utility_gate.degrade import View
from utility_gate.errors import NetworkError
from utility_gate.types import Copy, Observation


class ClassifierLook:
    """One classifier looking at the copies of one source, batch after batch, the pristine image
    first. Without a true class what it says of the pristine image is taken for true.

    Raises:
        TableError: if the true class is none of the network's.
    """

    def __init__(self, network: Classifier, truth: Truth) -> None:
        check_class(truth, network)
        self._network, self._true_class = network, truth.true_class
        self.forward_seconds = 0.0

    def look(self, copies: list[Copy], views: list[View], images: ImageBatch) -> list[Observation]:
        """One observation per copy.

        Raises:
            NetworkError: if the network's output is no probability distribution.
        """
        del views  # where a copy's pixels lie in the source does not matter to a class
        inputs = self._network.prepare(images)
        started = time.perf_counter()
        probabilities = self._network.forward(inputs)
        self.forward_seconds += time.perf_counter() - started
        if self._true_class is None:
            self._true_class = int(probabilities[0].argmax())
        return to_observations(copies, self._network, probabilities, self._true_class)


def to_observations(
    copies: list[Copy], network: Classifier, probabilities: Probabilities, true_class: int
) -> list[Observation]:
    """One observation per copy from the rows of `probabilities` (copies, classes).

    Raises:
        NetworkError: if a row is no probability distribution.
    """
    if not np.isfinite(probabilities).all():
        raise NetworkError(
            f"{network.name}: expected finite probabilities for {copies[0].source}, got others"
        )
    predicted = probabilities.argmax(axis=1)
    return [
        Observation(
            **copy.fields(),
            network=network.name,
            network_digest=network.digest,
            true_class=true_class,
            predicted_class=int(best),
            top1=min(float(row[best]), 1.0),
            ccsp=min(float(row[true_class]), 1.0),
        )
        for copy, row, best in zip(copies, probabilities, predicted, strict=True)
    ]
