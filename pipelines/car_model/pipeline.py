"""A photograph to make and model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipelines.answers import draw_overlay
from pipelines.car_model.answer import NO_CAR, AnswerThresholds, Identification, answer
from pipelines.classifier import Classifier
from pipelines.embedded import model_folder, model_info
from pipelines.overlay import LONGEST
from pipelines.photos import decode_photo, describe
from utility_gate.errors import CheckpointError
from utility_gate.images import DecodedImage, DecodeLimits
from utility_gate.predictor import EMBEDDED
from utility_gate.types import ImageInfo, PredictorInfo

HEAD = "model"
"""The classifier's head whose classes are names of cars, and `answer.NO_CAR`."""

CLASSIFIER = "classifier"


@dataclass(frozen=True, slots=True)
class CarAnswer:
    """What can be told of the car on one photograph. `overlay` is a PNG of it with the likeliest
    class's activation map, empty if no maps were asked for."""

    identification: Identification
    image: ImageInfo
    classifier: PredictorInfo
    overlay: bytes = b""


class CarModelPipeline:
    """The classifier and what its probabilities allow to tell; thread-safe."""

    def __init__(self, classifier: Classifier) -> None:
        """Take a classifier with the head `HEAD` and thresholds in its card.

        Raises:
            CheckpointError: if it has them not.
        """
        heads = {head.name: head for head in classifier.card.heads}
        if HEAD not in heads or heads[HEAD].multi_label or not set(heads[HEAD].classes) - {NO_CAR}:
            raise CheckpointError(
                f"{classifier.card.name} {classifier.card.version}: expected a head {HEAD!r} whose "
                f"classes are names of cars, got {', '.join(heads)}"
            )
        self.classifier = classifier
        self.classes = tuple(name for name in heads[HEAD].classes if name != NO_CAR)
        self.thresholds = AnswerThresholds.from_card(classifier.card.thresholds)

    @classmethod
    def load(cls, source: Path | str = EMBEDDED, threads: int = 1) -> CarModelPipeline:
        """Load from a checkpoint folder, or what ships with the package.

        Raises:
            CheckpointError: if it holds no usable classifier.
        """
        with model_folder(source, "pipelines.car_model") as folder:
            return cls(Classifier.load(folder, threads))

    @property
    def models(self) -> Mapping[str, PredictorInfo]:
        """Its network, by what it is for."""
        return {CLASSIFIER: model_info(self.classifier.card)}

    def decode(self, data: bytes, limits: DecodeLimits | None = None) -> DecodedImage:
        """Decode as the classifier was trained to see images; errors as `photos.decode_photo`."""
        return decode_photo(data, limits, self.classifier.card.scale_to)

    def identify(self, image: bytes | DecodedImage, *, with_maps: bool = False) -> CarAnswer:
        """Which car it is; `with_maps` with an overlay.

        Raises:
            ImageError: if bytes are given that cannot be used.
            NetworkError: if the network fails.
        """
        photo = self.decode(image) if isinstance(image, bytes) else image
        (heads,) = self.classifier.classify([photo.pixels])
        said = heads[HEAD]
        probabilities = dict(zip(said.classes, map(float, said.probabilities), strict=True))
        overlay = b""
        if with_maps:
            overlay = draw_overlay(self.classifier.card, said, photo.pixels, LONGEST)
        return CarAnswer(
            answer(probabilities, self.thresholds),
            describe(photo),
            overlay=overlay,
            **self.models,
        )
