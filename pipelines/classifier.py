"""A trained classifier at work; ONNX Runtime, no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipelines.card import ClassifierCard, HeadCard
from pipelines.loaded import LoadedNetwork
from utility_gate.errors import NetworkError
from utility_gate.images import DecodedImage, DecodeLimits, Pixels, decode
from utility_gate.statistics import softmax

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Answer:
    """What one head says of one image.

    `probabilities` (K,) are of `classes`; they sum to 1, or, for a multi-label head, each stands
    alone. `maps` (K, h, w) float32 are the class activation maps: each class's logit by place,
    over all of the image; their means are the logits.
    """

    classes: tuple[str, ...]
    probabilities: Floats
    maps: npt.NDArray[np.float32]

    @property
    def best(self) -> str:
        """The likeliest class."""
        return self.classes[int(self.probabilities.argmax())]

    def ranked(self, most: int) -> list[tuple[str, float]]:
        """The likeliest classes with their probabilities, likeliest first."""
        order = np.argsort(-self.probabilities, kind="stable")[:most]
        return [(self.classes[i], float(self.probabilities[i])) for i in order]


class Classifier(LoadedNetwork[ClassifierCard]):
    """A loaded classifier; may be asked from several threads at once."""

    def decode(self, data: bytes, limits: DecodeLimits | None = None) -> DecodedImage:
        """Decode as this classifier was trained to see images; errors as `images.decode`."""
        return decode(data, limits, scale_to=self.card.scale_to)

    def classify(self, images: Sequence[Pixels]) -> list[Mapping[str, Answer]]:
        """What every head says of each image (HWC uint8 RGB, any size), by the head's name.

        Raises:
            NetworkError: if the network fails.
        """
        batch = self.card.preprocess(list(images))
        try:
            logits, maps = self._session.run(["logits", "maps"], {self._input: batch})
        except Exception as error:  # ONNX Runtime raises a dozen unrelated types here
            raise NetworkError(f"{self.card.name}: the network failed: {error}") from error
        return [self._answers(row, its) for row, its in zip(logits, maps, strict=True)]

    def _answers(
        self, logits: npt.NDArray[np.float32], maps: npt.NDArray[np.float32]
    ) -> Mapping[str, Answer]:
        answers: dict[str, Answer] = {}
        first = 0
        for head in self.card.heads:
            part = slice(first, first + len(head.classes))
            first = part.stop
            answers[head.name] = Answer(
                head.classes, _probabilities(logits[part], head), maps[part]
            )
        return answers

    @classmethod
    def _card_kind(cls) -> type[ClassifierCard]:
        return ClassifierCard

    def _numbers(self, data: bytes) -> Mapping[str, float]:
        (answers,) = self.classify([self.decode(data).pixels])
        return {
            f"{head}/{label}": float(probability)
            for head, answer in answers.items()
            for label, probability in zip(answer.classes, answer.probabilities, strict=True)
        }


def _probabilities(logits: npt.NDArray[np.float32], head: HeadCard) -> Floats:
    if not head.multi_label:
        return softmax(logits, head.temperature)
    scaled = np.clip(logits.astype(np.float64) / head.temperature, -500.0, 500.0)
    result: Floats = 1.0 / (1.0 + np.exp(-scaled))
    return result
