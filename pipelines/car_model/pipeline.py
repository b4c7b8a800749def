"""A photograph to make and model: the car is found, cut out, then told what it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipelines.answers import draw_overlay
from pipelines.boxes import area
from pipelines.car_model.answer import NO_CAR, AnswerThresholds, Identification, answer
from pipelines.classifier import Answer, Classifier
from pipelines.detector import Box, Detection, Detector
from pipelines.embedded import CLASSIFIER, DETECTOR, model_folder, model_info
from pipelines.overlay import LONGEST
from pipelines.photos import decode_photo, describe
from pipelines.regions import Crop, cut, with_context
from utility_gate.checkpoint import CARD
from utility_gate.errors import CheckpointError
from utility_gate.images import DecodedImage, DecodeLimits, Pixels
from utility_gate.predictor import EMBEDDED
from utility_gate.types import ImageInfo, PredictorInfo

HEAD = "model"
"""The classifier's head whose classes are names of cars, and `answer.NO_CAR`."""

CONTEXT = 0.02
"""What is shown of a car beside it, in parts of its sides: the classifier learned from cars that
were cut out tightly."""


@dataclass(frozen=True, slots=True)
class FoundCar:
    """The car that an answer is about: `box` xyxy, and `crop`, what the classifier was shown and so
    the overlay, in pixels of the image as displayed; `score` in [0, 1] is the detector's."""

    box: Box
    score: float
    crop: Crop


@dataclass(frozen=True, slots=True)
class CarAnswer:
    """What can be told of the car on one photograph.

    `cars` were found, and `car` is the one that the answer is about; None if none was found, or
    nobody looked (`detector` is None): then the answer is about all of the photograph. `overlay` is
    a PNG of what was classified with the likeliest class's activation map, empty if no maps were
    asked for.
    """

    identification: Identification
    car: FoundCar | None
    cars: int
    image: ImageInfo
    classifier: PredictorInfo
    detector: PredictorInfo | None = None
    overlay: bytes = b""


class CarModelPipeline:
    """Detector, classifier, and what its probabilities allow to tell; thread-safe."""

    def __init__(
        self,
        classifier: Classifier,
        detector: Detector | None = None,
        side: int | None = None,
        thresholds: AnswerThresholds | None = None,
    ) -> None:
        """Take a classifier with the head `HEAD`, and thresholds in its card if none are given.
        Without a detector photographs are taken for cars that were cut out. `side` is the longer
        side of what the detector sees; None: its card's.

        Raises:
            CheckpointError: if the classifier has them not.
        """
        heads = {head.name: head for head in classifier.card.heads}
        if HEAD not in heads or heads[HEAD].multi_label or not set(heads[HEAD].classes) - {NO_CAR}:
            raise CheckpointError(
                f"{classifier.card.name} {classifier.card.version}: expected a head {HEAD!r} whose "
                f"classes are names of cars, got {', '.join(heads)}"
            )
        self.classifier, self.detector = classifier, detector
        self._side = side or (detector.card.side if detector else 0)
        self.classes = tuple(name for name in heads[HEAD].classes if name != NO_CAR)
        self.thresholds = thresholds or AnswerThresholds.from_card(classifier.card.thresholds)

    @classmethod
    def load(
        cls,
        source: Path | str = EMBEDDED,
        side: int | None = None,
        threads: int = 1,
        thresholds: AnswerThresholds | None = None,
    ) -> CarModelPipeline:
        """Load from a folder that holds `classifier/`, and `detector/` if cars are to be found, or
        what ships with the package. `thresholds` instead of the card's.

        Raises:
            CheckpointError: if there is none, or one of them is not usable.
        """
        with model_folder(source, "pipelines.car_model") as folder:
            classifier = Classifier.load(folder / CLASSIFIER, threads)
            finds = (folder / DETECTOR / CARD).is_file()
            detector = Detector.load(folder / DETECTOR, threads) if finds else None
            return cls(classifier, detector, side, thresholds)

    @property
    def models(self) -> Mapping[str, PredictorInfo]:
        """Its networks, by what they are for."""
        its = {CLASSIFIER: model_info(self.classifier.card)}
        return its if self.detector is None else {DETECTOR: model_info(self.detector.card), **its}

    def decode(self, data: bytes, limits: DecodeLimits | None = None) -> DecodedImage:
        """Decode as large as both networks need it; errors as `photos.decode_photo`."""
        return decode_photo(data, limits, max(self._side, self.classifier.card.scale_to))

    def identify(self, image: bytes | DecodedImage, *, with_maps: bool = False) -> CarAnswer:
        """Which car it is; `with_maps` with an overlay.

        Raises:
            ImageError: if bytes are given that cannot be used.
            NetworkError: if a network fails.
        """
        photo = self.decode(image) if isinstance(image, bytes) else image
        car, cars = self._find(photo)
        part = cut(photo.pixels, car.crop, (photo.width, photo.height)) if car else photo.pixels
        said = self._classify(part)
        overlay = b""
        if with_maps:
            overlay = draw_overlay(self.classifier.card, said, part, LONGEST)
        return CarAnswer(
            answer(to_probabilities(said), self.thresholds),
            car,
            cars,
            describe(photo),
            overlay=overlay,
            **self.models,
        )

    def _find(self, photo: DecodedImage) -> tuple[FoundCar | None, int]:
        """The car that the photograph is of, and how many there are."""
        if self.detector is None:
            return None, 0
        size = (photo.width, photo.height)
        found = self.detector.detect(photo.pixels, size, self._side)
        if not found:
            return None, 0
        best = main_car(found)
        return FoundCar(best.box, best.score, with_context(best.box, size, CONTEXT)), len(found)

    def _classify(self, part: Pixels) -> Answer:
        (heads,) = self.classifier.classify([part])
        return heads[HEAD]


def main_car(found: Sequence[Detection]) -> Detection:
    """The car that a photograph is of, among those on it: large and sure."""
    return max(found, key=lambda each: each.score * float(area(np.asarray(each.box))))


def to_probabilities(said: Answer) -> dict[str, float]:
    """The probabilities of all classes of cars, and of none, by name."""
    return dict(zip(said.classes, map(float, said.probabilities), strict=True))
