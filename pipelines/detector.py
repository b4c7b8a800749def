"""A trained one-stage detector at work; ONNX Runtime, no torch.

Boxes are decoded as torchvision's FCOS (Tian et al., 2019) decodes them, with which it is trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipelines.boxes import suppress
from pipelines.card import DetectorCard
from pipelines.loaded import LoadedNetwork
from utility_gate.errors import ConfigError, NetworkError
from utility_gate.images import DecodedImage, DecodeLimits, Pixels, decode

Floats = npt.NDArray[np.float32]
Box = tuple[float, float, float, float]

STEP = 32
"""Sides of inputs are multiples of this, so that every level's cells fill them."""

SMALLEST = 2.0
"""Boxes of which a side is shorter, in pixels of the image, are no regions."""

CANDIDATES = 1000
"""The most positions of one level, surest first, that become boxes (as in torchvision)."""

_MOST_SIDE = 4096


@dataclass(frozen=True, slots=True)
class Detection:
    """One region: `box` is xyxy in pixels of the image as displayed, `score` in [0, 1]."""

    box: Box
    score: float
    label: str


class Detector(LoadedNetwork[DetectorCard]):
    """A loaded detector; may be asked from several threads at once."""

    def decode(self, data: bytes, limits: DecodeLimits | None = None) -> DecodedImage:
        """Decode no smaller than this detector looks at images; errors as `images.decode`."""
        return decode(data, limits, scale_to=self.card.side)

    def detect(
        self,
        pixels: Pixels,
        size: tuple[int, int] | None = None,
        side: int | None = None,
        score: float | None = None,
    ) -> list[Detection]:
        """The regions of one image, surest first.

        Args:
            pixels: HWC uint8 RGB, upright.
            size: width and height of the image that `pixels` were scaled down from, in whose pixels
                boxes are told; None: they were not.
            side: the longer side of what the network sees, a multiple of `STEP`; None: the card's.
            score: the least score; None: the card's.

        Raises:
            ConfigError: if `side` cannot be.
            NetworkError: if the network fails, or gives something else than the card says.
        """
        side = self.card.side if side is None else side
        if side % STEP or not STEP <= side <= _MOST_SIDE:
            raise ConfigError(f"side: expected a multiple of {STEP} up to {_MOST_SIDE}, got {side}")
        batch, inner = to_input(pixels, side, self.card.mean, self.card.std)
        logits, distances, centerness = self._run(batch)
        least = self.card.score if score is None else score
        boxes, scores, labels = to_boxes(
            logits, distances, centerness, side, self.card.strides, least
        )
        height, width = pixels.shape[:2]
        boxes = _to_image(boxes, inner, size or (width, height))
        # So are boxes whose edges are no numbers.
        large = ((boxes[:, 2:] - boxes[:, :2]) >= SMALLEST).all(1)
        boxes, scores, labels = boxes[large], scores[large], labels[large]
        kept = suppress(boxes, scores, labels, self.card.overlap, self.card.most)
        return [
            Detection(_to_box(boxes[i]), float(scores[i]), self.card.classes[labels[i]])
            for i in kept
        ]

    def _run(self, batch: Floats) -> tuple[Floats, Floats, Floats]:
        side = batch.shape[-1]
        try:
            outputs = self._session.run(["logits", "distances", "centerness"], {self._input: batch})
        except Exception as error:  # ONNX Runtime raises a dozen unrelated types here
            raise NetworkError(f"{self.card.name}: the network failed: {error}") from error
        cells = sum(_cells(side, stride) ** 2 for stride in self.card.strides)
        expected = [(1, cells, channels) for channels in (len(self.card.classes), 4, 1)]
        got = [output.shape for output in outputs]
        if got != expected:
            raise NetworkError(
                f"{self.card.name}: expected logits, distances and centerness of the shapes "
                f"{expected} for {side} pixels and strides {self.card.strides}, got {got}"
            )
        return outputs[0][0], outputs[1][0], outputs[2][0]

    @classmethod
    def _card_kind(cls) -> type[DetectorCard]:
        return DetectorCard

    def _numbers(self, data: bytes) -> Mapping[str, float]:
        image = self.decode(data)
        size = (image.width, image.height)
        return to_numbers(self.detect(image.pixels, size), self.card.classes, size)


def to_input(
    pixels: Pixels, side: int, mean: Sequence[float], std: Sequence[float]
) -> tuple[Floats, tuple[int, int]]:
    """An image (HWC uint8 RGB) as the network sees it: (1, 3, side, side) float32, and the width
    and height that the image has in it, in its upper left corner; the rest is `mean`.

    `mean` and `std` are per channel, of 0-255 values. Resizing is antialiased.
    """
    height, width = pixels.shape[:2]
    scale = side / max(height, width)
    inner = (max(1, round(width * scale)), max(1, round(height * scale)))
    resized = np.asarray(Image.fromarray(pixels).resize(inner, Image.Resampling.BILINEAR))
    normal = (resized.astype(np.float32) - _row(mean)) / _row(std)
    batch = np.zeros((1, 3, side, side), np.float32)
    batch[0, :, : inner[1], : inner[0]] = normal.transpose(2, 0, 1)
    return batch, inner


def places(side: int, strides: Sequence[int]) -> tuple[Floats, Floats]:
    """The places (A, 2), x and y in pixels of the input, from which the cells of all levels, row by
    row, reckon their distances, and the strides (A,) of their levels.

    They are those of torchvision's anchors: a cell's upper left corner, not the centre that the
    paper has; and a level whose cells do not fill the input has them closer than its stride.
    """
    corners, units = [], []
    for stride in strides:
        cells = _cells(side, stride)
        along = np.arange(cells, dtype=np.float32) * (side // cells)
        y, x = np.meshgrid(along, along, indexing="ij")
        corners.append(np.stack([x.ravel(), y.ravel()], axis=1))
        units.append(np.full(cells**2, stride, np.float32))
    return np.concatenate(corners), np.concatenate(units)


def to_boxes(
    logits: Floats,
    distances: Floats,
    centerness: Floats,
    side: int,
    strides: Sequence[int],
    score: float,
) -> tuple[Floats, Floats, npt.NDArray[np.int64]]:
    """Boxes (N, 4) xyxy in pixels of the input, scores (N,) and class numbers (N,) of what is surer
    than `score`; at most `CANDIDATES` a level, nothing suppressed or clipped yet.

    The score is sqrt(sigmoid(logit) sigmoid(centre-ness)). `logits` are (A, K), `distances` (A, 4)
    from the cell's place to left, top, right, bottom in strides, `centerness` (A, 1) logits.
    """
    origins, units = places(side, strides)
    scores = np.sqrt(_sigmoid(logits) * _sigmoid(centerness))
    kept_cells, kept_labels, first = [], [], 0
    for stride in strides:
        level = slice(first, first + _cells(side, stride) ** 2)
        first = level.stop
        cells, labels = np.nonzero(scores[level] > score)
        order = np.argsort(-scores[level][cells, labels], kind="stable")[:CANDIDATES]
        kept_cells.append(cells[order] + level.start)
        kept_labels.append(labels[order])
    cells, labels = np.concatenate(kept_cells), np.concatenate(kept_labels)
    # A distance beyond the input is as good as one to its edge, whatever the network says.
    reach = np.clip(distances[cells], 0, side) * units[cells, None]
    corners = [origins[cells] - reach[:, :2], origins[cells] + reach[:, 2:]]
    return np.concatenate(corners, axis=1), scores[cells, labels], labels


def to_numbers(
    detections: Sequence[Detection], classes: Sequence[str], size: tuple[int, int]
) -> dict[str, float]:
    """What a conformance vector holds: for each class the score of the surest detection
    ("dent/score", 0 if there is none), and its box in parts of the image's sides ("dent/left")."""
    numbers = {f"{name}/score": 0.0 for name in classes}
    for detection in reversed(detections):
        numbers[f"{detection.label}/score"] = detection.score
        for edge, value, length in zip(
            ("left", "top", "right", "bottom"), detection.box, size * 2, strict=True
        ):
            numbers[f"{detection.label}/{edge}"] = value / length
    return numbers


def _cells(side: int, stride: int) -> int:
    """How many cells of a level lie along a side; every level halves the one below it, upwards."""
    return -(-side // stride)


def _to_image(boxes: Floats, inner: tuple[int, int], size: tuple[int, int]) -> Floats:
    """Boxes in pixels of the input to such in pixels of the image, clipped to it."""
    limits = _row(inner * 2)
    scale = _row(size * 2) / limits
    result: Floats = np.clip(boxes, 0, limits) * scale
    return result


def _row(numbers: Sequence[float]) -> Floats:
    return np.asarray(numbers, np.float32)


def _to_box(row: Floats) -> Box:
    left, top, right, bottom = (float(edge) for edge in row)
    return left, top, right, bottom


def _sigmoid(values: Floats) -> Floats:
    return (1 / (1 + np.exp(-np.clip(values, -80, 80)))).astype(np.float32)
