"""A predictor on disk: a folder with `card.json` and the weights that the card names.

The card is all that is needed to use the weights rightly: preprocessing, calibration,
thresholds, what they were trained on and how well they do. Loading checks the weights' SHA-256,
and the predictor then repeats the conformance vectors before it serves. A checkpoint may hold the
same network once more, in int8; docs/checkpoint.md tells of both.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from utility_gate.errors import CheckpointError
from utility_gate.files import digest_bytes, whole_file
from utility_gate.preprocess import Preprocess
from utility_gate.types import PredictorInfo, Thresholds

CARD = "card.json"
ONNX = "model.onnx"
ONNX_INT8 = "model.int8.onnx"
SAFETENSORS = "model.safetensors"

Precision = Literal["fp32", "int8", "auto"]
"""Which weights of a checkpoint serve; "auto" is int8 where the card has it, else fp32."""

Share = Annotated[float, Field(ge=0, le=1)]


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


class QuantizedWeights(Weights):
    """The same network in int8, and what is its own: it gives other logits, so it has another
    `temperature` and perhaps other `thresholds` (None: the card's).

    `utilities` are what it must give the card's conformance images, in their order, each within
    `tolerance`. `metrics` says how it was made and how it compares on validation copies; for
    people.
    """

    temperature: float = Field(gt=0)
    thresholds: Thresholds | None = None
    utilities: tuple[Share, ...] = Field(min_length=1)
    tolerance: float = Field(gt=0, le=0.1)
    metrics: dict[str, Any] = {}


class Guarantee(_Model):
    """A bound on what a threshold does to photographs that nobody has seen yet.

    By conformal risk control (Angelopoulos et al., ICLR 2024, eq. 4): a photograph's loss is the
    share of its useful copies that are rejected ("reject_useful", utility below `threshold`), or of
    its non-useful ones that pass ("pass_non_useful", utility at or above it). The expected loss of
    the next photograph is at most `risk`, if photographs come as those did that calibrated:
    `sources` of them, whose mean loss was `achieved`. `holds` is False where they were too few to
    promise anything; then `achieved` is an observation, no more.

    Raises:
        ValueError: if it is said to hold with a loss above the risk.
    """

    kind: Literal["reject_useful", "pass_non_useful"]
    risk: Share
    sources: int = Field(ge=0)
    threshold: Share
    achieved: Share
    holds: bool

    @model_validator(mode="after")
    def _does_not_contradict_itself(self) -> Guarantee:
        if self.holds and self.achieved > self.risk + 1e-9:
            raise ValueError(
                f"expected a mean loss of at most {self.risk:g} of a guarantee that holds, got "
                f"{self.achieved:g}"
            )
        return self


class WeightsCard(_Model):
    """What the card of any network has: the weights that it belongs to."""

    weights: Weights


AnyCard = TypeVar("AnyCard", bound=WeightsCard)


class Card(WeightsCard):
    """Everything that is known of a predictor.

    `scale_to` is the decoder's scaling floor that it was trained with (see `images.decode`),
    `min_side` the shortest image side in pixels that it judges at all, `temperature` divides the
    logits before the softmax (Guo et al., 2017). `guarantees` are of these weights with these
    thresholds, on the images that they were made from.

    For people: `intended_use` (what it is for), `limits` (what it was not made for, not measured
    on, or is known to get wrong), `training` and `metrics`.

    Raises:
        ValueError: if the int8 weights are the fp32 ones, or their utilities are not one for each
            conformance image.
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
    quantized: QuantizedWeights | None = None
    guarantees: tuple[Guarantee, ...] = ()
    intended_use: str = ""
    limits: tuple[str, ...] = ()
    training: dict[str, Any] = {}
    metrics: dict[str, Any] = {}
    conformance: tuple[ConformanceVector, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _variants_fit(self) -> Card:
        if self.quantized is None:
            return self
        if self.quantized.file == self.weights.file:
            raise ValueError(f"expected int8 weights in another file than {self.weights.file}")
        if len(self.quantized.utilities) != len(self.conformance):
            raise ValueError(
                f"expected an int8 utility for each of {len(self.conformance)} conformance images, "
                f"got {len(self.quantized.utilities)}"
            )
        return self

    @property
    def info(self) -> PredictorInfo:
        """Name, version and digest, as every verdict carries them."""
        return PredictorInfo(self.name, self.version, self.weights.sha256)

    def variant(self, precision: Precision) -> Card:
        """The card of the weights that serve in a precision: for fp32 this one, for int8 one whose
        weights, temperature, thresholds, conformance and metrics are those of the int8 weights. It
        has no guarantees, which were made with other utilities.

        Raises:
            CheckpointError: if int8 is asked for and there is none.
        """
        own = self.quantized
        if precision == "fp32" or (own is None and precision == "auto"):
            return self
        if own is None:
            raise CheckpointError(
                f"{self.name} {self.version}: expected int8 weights, its card names none; make "
                "them with `utility-gate quantize`, or ask for fp32 or auto"
            )
        return self.model_copy(
            update={
                "weights": Weights(file=own.file, sha256=own.sha256),
                "temperature": own.temperature,
                "thresholds": own.thresholds or self.thresholds,
                "conformance": tuple(
                    vector.model_copy(update={"utility": utility, "tolerance": own.tolerance})
                    for vector, utility in zip(self.conformance, own.utilities, strict=True)
                ),
                "metrics": own.metrics,
                "guarantees": (),
                "quantized": None,
            }
        )


def load(folder: Path, precision: Precision = "fp32") -> tuple[Card, bytes]:
    """The card and the ONNX weights of a predictor in a precision, see `Card.variant`; of the two
    weights files the other one is not looked at.

    Raises:
        CheckpointError: as `load_card`, or if int8 is asked for and there is none.
    """
    card = _read_card(folder, Card).variant(precision)
    return card, _read_weights(folder, card.weights)


def load_card(folder: Path, kind: type[AnyCard]) -> tuple[AnyCard, bytes]:
    """The card of a kind, and the ONNX weights that it names, checked against each other.

    Raises:
        CheckpointError: if a file is missing, the card is not valid or the digest differs.
    """
    card = _read_card(folder, kind)
    return card, _read_weights(folder, card.weights)


def _read_card(folder: Path, kind: type[AnyCard]) -> AnyCard:
    try:
        return kind.model_validate_json((folder / CARD).read_bytes())
    except OSError as error:
        raise _incomplete(folder, error) from error
    except ValidationError as error:
        raise CheckpointError(f"{folder / CARD}: not a valid card: {error}") from error


def _read_weights(folder: Path, weights: Weights) -> bytes:
    try:
        data = (folder / weights.file).read_bytes()
    except OSError as error:
        raise _incomplete(folder, error) from error
    digest = digest_bytes(data)
    if digest != weights.sha256:
        raise CheckpointError(
            f"{folder / weights.file}: expected SHA-256 {weights.sha256}, got {digest}; "
            "the file is damaged or belongs to another card"
        )
    return data


def _incomplete(folder: Path, error: OSError) -> CheckpointError:
    return CheckpointError(f"{folder}: expected {CARD} and the weights that it names: {error}")


def save_card(card: WeightsCard, folder: Path) -> Path:
    """Write `card.json`, readable and with sorted keys. Atomic."""
    path = folder / CARD
    text = json.dumps(card.model_dump(mode="json"), indent=2, sort_keys=True, ensure_ascii=False)
    with whole_file(path) as partial:
        partial.write_text(text + "\n", encoding="utf-8")
    return path
