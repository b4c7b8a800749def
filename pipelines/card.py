"""A pipeline's network on disk: a folder with `card.json` and the weights that the card names."""

from __future__ import annotations

import base64
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipelines.heads import Head
from utility_gate.checkpoint import WeightsCard
from utility_gate.errors import ConfigError
from utility_gate.preprocess import Preprocess

TOLERANCE = 0.03
"""How far a probability of a conformance vector may be off: int8 kernels differ by machine."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class HeadCard(_Model):
    """A head with the temperature that divides its logits."""

    name: str
    classes: tuple[str, ...]
    multi_label: bool = False
    temperature: float = Field(default=1.0, gt=0)

    @model_validator(mode="after")
    def _is_a_head(self) -> HeadCard:
        _ = self.head
        return self

    @property
    def head(self) -> Head:
        """The question and its answers."""
        return Head(self.name, self.classes, self.multi_label)


class Vector(_Model):
    """An encoded image (base64) and what the network must say of it: numbers by name."""

    image: str
    expected: dict[str, float]
    tolerance: float = Field(default=TOLERANCE, gt=0, le=0.2)

    @property
    def data(self) -> bytes:
        """The encoded image."""
        return base64.b64decode(self.image)


class NetworkCard(WeightsCard):
    """What every network's card says. `training` and `metrics` are for people."""

    schema_version: Literal[1] = 1
    name: str = Field(min_length=1)
    version: str = Field(min_length=1)
    training: dict[str, Any] = Field(default={})
    metrics: dict[str, Any] = Field(default={})
    conformance: tuple[Vector, ...] = Field(min_length=1)


class ClassifierCard(NetworkCard):
    """A classifier: `scale_to` is the decoder's scaling floor (see `images.decode`), `thresholds`
    are the probabilities from which on a pipeline says more, by name."""

    kind: Literal["classifier"] = "classifier"
    preprocess: Preprocess
    scale_to: int = Field(gt=0)
    heads: tuple[HeadCard, ...] = Field(min_length=1)
    thresholds: dict[str, Annotated[float, Field(ge=0, le=1)]] = Field(default={})

    def find_head(self, name: str) -> tuple[int, Head]:
        """A head that chooses one class, after the number of logits before its own.

        Raises:
            ConfigError: if there is none of this name.
        """
        heads = [each.head for each in self.heads]
        for number, head in enumerate(heads):
            if head.name == name and not head.multi_label:
                return sum(len(each.classes) for each in heads[:number]), head
        names = ", ".join(each.name for each in heads if not each.multi_label)
        raise ConfigError(f"expected one of the heads {names}, got {name!r}")


class DetectorCard(NetworkCard):
    """A one-stage detector: maps of class logits, box distances and centre-ness at `strides`.

    Images are resized so that the longer side is `side`, and padded to `side` x `side` with
    `mean`. Boxes below `score` are dropped; of those that overlap by more than `overlap` (IoU)
    the surest remains.
    """

    kind: Literal["detector"] = "detector"
    side: int = Field(gt=0, le=4096)
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    classes: tuple[str, ...] = Field(min_length=1)
    strides: tuple[int, ...] = Field(min_length=1)
    score: float = Field(ge=0, le=1)
    overlap: float = Field(gt=0, le=1)
    most: int = Field(default=100, gt=0)
