"""What a classifier says of an image, for those who asked a pipeline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipelines import overlay
from pipelines.card import ClassifierCard
from pipelines.classifier import Answer
from utility_gate.images import Pixels


@dataclass(frozen=True, slots=True)
class HeadAnswer:
    """What one head says: every class with its probability, likeliest first.

    The probabilities sum to 1, or, for a multi-label head, each stands alone. `overlay` is a PNG of
    the image with the likeliest class's activation map, empty if no maps were asked for.
    """

    head: str
    classes: tuple[tuple[str, float], ...]
    multi_label: bool = False
    overlay: bytes = b""

    @property
    def best(self) -> tuple[str, float]:
        """The likeliest class and its probability."""
        return self.classes[0]

    def probability(self, name: str) -> float:
        """The probability of a class; 0 if the head does not know it."""
        return next((value for known, value in self.classes if known == name), 0.0)


def to_head_answers(card: ClassifierCard, answers: Mapping[str, Answer]) -> tuple[HeadAnswer, ...]:
    """One answer a head, in the card's order, without overlays."""
    return tuple(
        HeadAnswer(head.name, tuple(answers[head.name].ranked(len(head.classes))), head.multi_label)
        for head in card.heads
    )


def draw_overlay(card: ClassifierCard, answer: Answer, pixels: Pixels, longest: int) -> bytes:
    """A PNG of an image (HWC uint8 RGB) with the activation map of the likeliest class."""
    best = answer.maps[int(answer.probabilities.argmax())]
    return overlay.draw(overlay.seen(pixels, card.preprocess), best, longest)


def say(answers: Sequence[HeadAnswer]) -> str:
    """In English: "type door_dent (0.80), severity moderate (0.66)". Of a multi-label head what is
    likelier than not."""
    said = []
    for answer in answers:
        told = answer.classes[:1]
        if answer.multi_label:
            told = tuple((name, p) for name, p in answer.classes if p >= 0.5)
        words = " and ".join(f"{name} ({p:.2f})" for name, p in told)
        said.append(f"{answer.head} {words or 'unknown'}")
    return ", ".join(said)
