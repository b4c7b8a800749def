"""A pipeline's network on disk: a folder with `card.json` and the weights that the card names."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pipelines.heads import Head
from utility_gate.checkpoint import CARD, Weights
from utility_gate.errors import CheckpointError
from utility_gate.files import digest_bytes, whole_file
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


class NetworkCard(_Model):
    """What every network's card says. `training` and `metrics` are for people."""

    schema_version: Literal[1] = 1
    name: str = Field(min_length=1)
    version: str = Field(min_length=1)
    weights: Weights
    training: dict[str, Any] = {}
    metrics: dict[str, Any] = {}
    conformance: tuple[Vector, ...] = Field(min_length=1)


class ClassifierCard(NetworkCard):
    """A classifier: `scale_to` is the decoder's scaling floor (see `images.decode`), `thresholds`
    are the probabilities from which on a pipeline says more, by name."""

    kind: Literal["classifier"] = "classifier"
    preprocess: Preprocess
    scale_to: int = Field(gt=0)
    heads: tuple[HeadCard, ...] = Field(min_length=1)
    thresholds: dict[str, Annotated[float, Field(ge=0, le=1)]] = {}


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


AnyCard = TypeVar("AnyCard", bound=NetworkCard)


def load(folder: Path, kind: type[AnyCard]) -> tuple[AnyCard, bytes]:
    """The card and the ONNX weights of a network, checked against each other.

    Raises:
        CheckpointError: if a file is missing, the card is not valid or the digest differs.
    """
    try:
        card = kind.model_validate_json((folder / CARD).read_bytes())
        weights = (folder / card.weights.file).read_bytes()
    except OSError as error:
        raise CheckpointError(
            f"{folder}: expected {CARD} and the weights that it names: {error}"
        ) from error
    except ValidationError as error:
        raise CheckpointError(f"{folder / CARD}: not a valid card: {error}") from error
    digest = digest_bytes(weights)
    if digest != card.weights.sha256:
        raise CheckpointError(
            f"{folder / card.weights.file}: expected SHA-256 {card.weights.sha256}, got {digest}; "
            "the file is damaged or belongs to another card"
        )
    return card, weights


def save_card(card: NetworkCard, folder: Path) -> Path:
    """Write `card.json`, readable and with sorted keys. Atomic."""
    path = folder / CARD
    text = json.dumps(card.model_dump(mode="json"), indent=2, sort_keys=True, ensure_ascii=False)
    with whole_file(path) as partial:
        partial.write_text(text + "\n", encoding="utf-8")
    return path
