"""Decoded images in, calibrated utilities out; ONNX Runtime, no torch."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
import numpy.typing as npt

from utility_gate import checkpoint
from utility_gate.checkpoint import CARD, Card, Precision
from utility_gate.errors import CheckpointError, NetworkError
from utility_gate.images import DecodedImage, DecodeLimits, Pixels, decode
from utility_gate.networks import open_session

log = logging.getLogger(__name__)

EMBEDDED = "embedded"
"""Stands for the predictor that ships with the package, wherever a folder is expected;
"embedded:TASK" for the one of another task than `GENERAL`."""

GENERAL = "general"

Utilities = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Look:
    """What a predictor made of one image: the square `crop` of it that the network saw, (S, S, 3)
    uint8 RGB, and its utility in [0, 1]."""

    image: DecodedImage
    crop: Pixels
    utility: float


class UtilityPredictor:
    """A loaded predictor. `predict` may be called from several threads at once."""

    def __init__(
        self,
        card: Card,
        weights: bytes,
        threads: int = 1,
        providers: Sequence[str] = ("CPUExecutionProvider",),
    ) -> None:
        """Open the weights and repeat the card's conformance vectors. `providers` are ONNX
        Runtime's, the first that is there computes.

        Raises:
            CheckpointError: if they do not load, or give other utilities than the card says.
        """
        self.card = card
        try:
            self._session = open_session(weights, threads, providers)
        except NetworkError as error:
            raise CheckpointError(f"{card.name} {card.version}: {error}") from error
        self._input = self._session.get_inputs()[0].name
        self._check_conformance()

    @classmethod
    def load(
        cls,
        source: Path | str = EMBEDDED,
        threads: int = 1,
        providers: Sequence[str] = ("CPUExecutionProvider",),
        precision: Precision = "fp32",
    ) -> UtilityPredictor:
        """Load from a checkpoint folder, or one that ships with the package (`EMBEDDED`).

        `precision` "int8" takes the card's int8 weights, with what is their own; `card` is then
        theirs (`Card.variant`). "auto" takes them where the card has them and the first provider
        is the CPU, unless this CPU computes something else with them than the card says, as one
        without instructions for int8 may; then fp32.

        Raises:
            CheckpointError: if the folder holds no usable predictor, or none in this precision.
        """
        if precision == "auto" and providers[0] != "CPUExecutionProvider":
            precision = "fp32"
        with checkpoint_folder(source) as folder:
            return cls._load(folder, threads, providers, precision)

    @classmethod
    def _load(
        cls, folder: Path, threads: int, providers: Sequence[str], precision: Precision
    ) -> UtilityPredictor:
        card, weights = checkpoint.load(folder, precision)
        if precision != "auto":
            return cls(card, weights, threads, providers)
        try:
            return cls(card, weights, threads, providers)
        except CheckpointError as error:
            whole, weights = checkpoint.load(folder)
            if whole.weights == card.weights:
                raise
            log.warning("%s: serves in fp32, not in int8: %s", folder, error)
            return cls(whole, weights, threads, providers)

    def decode(self, data: bytes, limits: DecodeLimits | None = None) -> DecodedImage:
        """Decode as this predictor was trained to see images; errors as `images.decode`."""
        return decode(data, limits, scale_to=self.card.scale_to)

    def crop(self, image: DecodedImage) -> Pixels:
        """The square that the network sees, (S, S, 3) uint8 RGB."""
        return self.card.preprocess.crop_pixels(image.pixels)

    def predict(self, crops: Pixels) -> Utilities:
        """Utilities in [0, 1], float64 (N,), of a batch of crops (N, S, S, 3) uint8 RGB."""
        (logits,) = self._session.run(None, {self._input: self.card.preprocess.normalize(crops)})
        return to_utility(np.asarray(logits, np.float64), self.card.temperature)

    def judge(self, image: DecodedImage, crop: Pixels) -> float:
        """The utility of one image; 0 for one too small for this predictor to judge."""
        return 0.0 if self.is_too_small(image) else float(self.predict(crop[np.newaxis])[0])

    def look(self, data: bytes, limits: DecodeLimits | None = None) -> Look:
        """Decode, crop and judge; errors as `images.decode`."""
        image = self.decode(data, limits)
        crop = self.crop(image)
        return Look(image, crop, self.judge(image, crop))

    def is_too_small(self, image: DecodedImage) -> bool:
        """Whether this predictor cannot judge an image of this size."""
        return min(image.width, image.height) < self.card.min_side

    def _check_conformance(self) -> None:
        for number, vector in enumerate(self.card.conformance):
            try:
                image = self.decode(vector.data)
                utility = self.judge(image, self.crop(image))
            except Exception as error:  # ONNX Runtime raises a dozen unrelated types here
                raise CheckpointError(
                    f"{self.card.name} {self.card.version}: does not run: {error}"
                ) from error
            if not abs(utility - vector.utility) <= vector.tolerance:
                raise CheckpointError(
                    f"{self.card.name} {self.card.version}: conformance vector {number}: expected "
                    f"utility {vector.utility:.4f} +- {vector.tolerance:g}, got {utility:.4f}; "
                    "this machine or its libraries compute something else than was evaluated"
                )


def is_embedded(source: Path | str) -> bool:
    """Whether a predictor is one that ships with the package."""
    return str(source).partition(":")[0] == EMBEDDED


def embedded_tasks() -> tuple[str, ...]:
    """The tasks that a predictor ships for."""
    folders = files("utility_gate.default").iterdir()
    return tuple(sorted(folder.name for folder in folders if (folder / CARD).is_file()))


@contextmanager
def checkpoint_folder(source: Path | str) -> Iterator[Path]:
    """The folder `source`, or that of a predictor that ships with the package (`EMBEDDED`).

    Raises:
        CheckpointError: if none ships for the task.
    """
    if not is_embedded(source):
        yield Path(source)
        return
    task = str(source).partition(":")[2] or GENERAL
    if task not in (known := embedded_tasks()):
        raise CheckpointError(
            f"expected {EMBEDDED}:TASK with a task among {', '.join(known)}, got {source}"
        )
    with as_file(files("utility_gate.default") / task) as folder:
        yield folder


def to_utility(logits: npt.NDArray[np.float64], temperature: float) -> Utilities:
    """Softmax probability of class 1 (useful) of logits (N, 2) divided by `temperature`."""
    margin = (logits[:, 1] - logits[:, 0]) / temperature
    result: Utilities = 1.0 / (1.0 + np.exp(-np.clip(margin, -500.0, 500.0)))
    return result
