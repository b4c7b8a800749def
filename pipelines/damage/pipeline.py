"""A photograph to what is damaged on it: regions are found, then told what they are."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipelines.answers import HeadAnswer, draw_overlay, say, to_head_answers
from pipelines.classifier import Answer, Classifier
from pipelines.damage.heads import NO_CAR
from pipelines.detector import Box, Detection, Detector
from pipelines.embedded import CLASSIFIER, DETECTOR, model_folder, model_info
from pipelines.overlay import longest_for
from pipelines.photos import decode_photo, describe
from pipelines.regions import Crop, cut, with_context
from utility_gate.images import DecodedImage, DecodeLimits, Pixels
from utility_gate.predictor import EMBEDDED
from utility_gate.types import ImageInfo, PredictorInfo

NO_CAR_FROM = 0.5
"""From this probability of the class `NO_CAR` on, in whichever head has it, regions are not
reported."""

MOST_REGIONS = 8

CONTEXT = 0.25
"""What is shown of a region beside it, in parts of its sides."""


class Outcome(enum.StrEnum):
    """The answer in one word."""

    DAMAGED = "DAMAGED"  # at least one region
    NO_REGION = "NO_REGION"  # none; the whole photograph may still look damaged
    NO_CAR = "NO_CAR"  # regions are not reported


@dataclass(frozen=True, slots=True)
class Region:
    """One damaged region: `box` xyxy, `crop` (what the classifier was shown) and so the overlays,
    in pixels of the image as displayed; `score` in [0, 1] and `label` are the detector's."""

    box: Box
    score: float
    label: str
    crop: Crop
    heads: tuple[HeadAnswer, ...]


@dataclass(frozen=True, slots=True)
class Assessment:
    """What was found on one photograph: regions, surest first, and what the classifier says of all
    of it."""

    outcome: Outcome
    regions: tuple[Region, ...]
    whole: tuple[HeadAnswer, ...]
    image: ImageInfo
    detector: PredictorInfo
    classifier: PredictorInfo

    @property
    def text(self) -> str:
        """The answer as a sentence in English."""
        if self.outcome is Outcome.NO_CAR:
            return "no car"
        if self.outcome is Outcome.NO_REGION:
            return f"no damaged region; the whole photograph: {say(self.whole)}"
        first, count = self.regions[0], len(self.regions)
        regions = "1 damaged region" if count == 1 else f"{count} damaged regions, the surest"
        return f"{regions}: {first.label} ({first.score:.2f}), {say(first.heads)}"


class DamagePipeline:
    """Detector and classifier; may be asked from several threads at once."""

    def __init__(self, detector: Detector, classifier: Classifier, side: int | None = None) -> None:
        """`side` is the longer side of what the detector sees; None: its card's."""
        self.detector, self.classifier = detector, classifier
        self._side = side or detector.card.side

    @classmethod
    def load(
        cls, source: Path | str = EMBEDDED, side: int | None = None, threads: int = 1
    ) -> DamagePipeline:
        """Load from a folder that holds `detector/` and `classifier/`, or what ships with the
        package.

        Raises:
            CheckpointError: if there is none, or one of them is not usable.
        """
        with model_folder(source, "pipelines.damage") as folder:
            return cls(
                Detector.load(folder / DETECTOR, threads),
                Classifier.load(folder / CLASSIFIER, threads),
                side,
            )

    @property
    def models(self) -> Mapping[str, PredictorInfo]:
        """Its networks, by what they are for."""
        return {
            DETECTOR: model_info(self.detector.card),
            CLASSIFIER: model_info(self.classifier.card),
        }

    def decode(self, data: bytes, limits: DecodeLimits | None = None) -> DecodedImage:
        """Decode as large as both networks need it; errors as `photos.decode_photo`."""
        return decode_photo(data, limits, max(self._side, self.classifier.card.scale_to))

    def assess(self, image: bytes | DecodedImage, *, with_maps: bool = False) -> Assessment:
        """What is damaged on a photograph; `with_maps` with overlays.

        Raises:
            ImageError: if bytes are given that cannot be used.
            NetworkError: if a network fails.
        """
        photo = self.decode(image) if isinstance(image, bytes) else image
        size = (photo.width, photo.height)
        found = self.detector.detect(photo.pixels, size, self._side)[:MOST_REGIONS]
        crops = [with_context(detection.box, size, CONTEXT) for detection in found]
        parts = [photo.pixels, *(cut(photo.pixels, crop, size) for crop in crops)]
        # One batch, the whole photograph first.
        said = self.classifier.classify(parts)
        outcome = _outcome(to_head_answers(self.classifier.card, said[0]), found)
        shown = parts if outcome is Outcome.DAMAGED else parts[:1]
        longest = longest_for(len(shown) * len(self.classifier.card.heads)) if with_maps else 0
        heads = [self._heads(its, part, longest) for its, part in zip(said, shown, strict=False)]
        return Assessment(
            outcome,
            tuple(
                Region(each.box, each.score, each.label, crop, its)
                for each, crop, its in zip(found, crops, heads[1:], strict=False)
            ),
            heads[0],
            describe(photo),
            **self.models,
        )

    def _heads(
        self, answers: Mapping[str, Answer], part: Pixels, longest: int
    ) -> tuple[HeadAnswer, ...]:
        """The answers on one part of the photograph, with overlays unless `longest` is 0."""
        card = self.classifier.card
        heads = to_head_answers(card, answers)
        if not longest:
            return heads
        return tuple(
            replace(said, overlay=draw_overlay(card, answers[said.head], part, longest))
            for said in heads
        )


def _outcome(whole: Sequence[HeadAnswer], found: Sequence[Detection]) -> Outcome:
    if any(said.probability(NO_CAR) >= NO_CAR_FROM for said in whole):
        return Outcome.NO_CAR
    return Outcome.DAMAGED if found else Outcome.NO_REGION
