"""A predictor on disk: a folder with `card.json` and the weights that the card names.

The card is all that is needed to use the weights rightly: preprocessing, calibration,
thresholds, what they were trained on and how well they do. Loading checks the weights' SHA-256,
and the predictor then repeats the conformance vectors before it serves.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from utility_gate.errors import CheckpointError
from utility_gate.files import digest_bytes, whole_file
from utility_gate.preprocess import Preprocess
from utility_gate.types import PredictorInfo, Thresholds

CARD = "card.json"
ONNX = "model.onnx"
SAFETENSORS = "model.safetensors"


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Weights(_Model):
    """A weights file beside the card and its SHA-256 (hex)."""

    file: str
    sha256: str = Field(pattern="^[0-9a-f]{64}$")

    @field_validator("file")
    @classmethod
    def _stays_in_the_folder(cls, value: str) -> str:
        if Path(value).name != value or not value.endswith(".onnx"):
            raise ValueError(f"expected the name of an .onnx file beside the card, got {value!r}")
        return value


class ConformanceVector(_Model):
    """An encoded image (base64) and the utility that the predictor must give it."""

    image: str
    utility: float = Field(ge=0, le=1)
    tolerance: float = Field(gt=0, le=0.1)

    @property
    def data(self) -> bytes:
        """The encoded image."""
        return base64.b64decode(self.image)


class WeightsCard(_Model):
    """What the card of any network has: the weights that it belongs to."""

    weights: Weights


AnyCard = TypeVar("AnyCard", bound=WeightsCard)


class Card(WeightsCard):
    """Everything that is known of a predictor.

    `scale_to` is the decoder's scaling floor that it was trained with (see `images.decode`),
    `min_side` the shortest image side in pixels that it judges at all, `temperature` divides the
    logits before the softmax (Guo et al., 2017). `training` and `metrics` are for people.
    """

    schema_version: Literal[1] = 1
    name: str = Field(min_length=1)
    version: str = Field(min_length=1)
    task: str = Field(min_length=1)
    preprocess: Preprocess
    scale_to: int = Field(gt=0)
    min_side: int = Field(gt=0)
    temperature: float = Field(gt=0)
    thresholds: Thresholds
    training: dict[str, Any] = {}
    metrics: dict[str, Any] = {}
    conformance: tuple[ConformanceVector, ...] = Field(min_length=1)

    @property
    def info(self) -> PredictorInfo:
        """Name, version and digest, as every verdict carries them."""
        return PredictorInfo(self.name, self.version, self.weights.sha256)


def load(folder: Path) -> tuple[Card, bytes]:
    """The card and the ONNX weights of a predictor; see `load_card`."""
    return load_card(folder, Card)


def load_card(folder: Path, kind: type[AnyCard]) -> tuple[AnyCard, bytes]:
    """The card of a kind, and the ONNX weights that it names, checked against each other.

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


def save_card(card: WeightsCard, folder: Path) -> Path:
    """Write `card.json`, readable and with sorted keys. Atomic."""
    path = folder / CARD
    text = json.dumps(card.model_dump(mode="json"), indent=2, sort_keys=True, ensure_ascii=False)
    with whole_file(path) as partial:
        partial.write_text(text + "\n", encoding="utf-8")
    return path
