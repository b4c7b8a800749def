"""A checkpoint gets an int8 variant: made from training copies, calibrated and compared on
validation copies, written down beside the fp32 one. Held-out copies are never looked at."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torchmetrics.functional.classification import binary_auroc, multiclass_accuracy

from utility_gate.checkpoint import ONNX_INT8, Card, QuantizedWeights, load, save_card
from utility_gate.degrade import OWN_COPIES
from utility_gate.errors import ConfigError
from utility_gate.files import digest_bytes, digest_file, whole_file
from utility_gate.images import Pixels, decode
from utility_gate.networks import open_session
from utility_gate.predictor import UtilityPredictor, to_utility
from utility_gate.sides import LabelledCopy, Shares, load_sides
from utility_gate.training.calibrate import fit_temperature
from utility_gate.training.quantize import Recipe, quantize_onnx

log = logging.getLogger(__name__)

CALIBRATION_COPIES = 200
MAX_LOSS = 0.005
"""By how much the validation AUROC may fall."""

TOLERANCES = (0.02, 0.1)
"""The least and the largest tolerance of a conformance utility in int8."""

_VALIDATION = 0.2
_BATCH = 4
_NOISE = 1e-6
_DRAWS = 4
_PACKAGES = ("utility-gate", "onnx", "onnxruntime", "torch", "pillow", "numpy")

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Score:
    """One precision on the validation copies: AUROC; balanced accuracy at utility 1/2; the share of
    useful copies below the card's `review` threshold, and of non-useful ones at or above `useful`;
    the temperature; the size of the weights in bytes."""

    auroc: float
    balanced_accuracy: float
    rejected_useful: float
    passed_non_useful: float
    temperature: float
    size: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """Both precisions on the same `copies`, `useful` of them useful; how far the utilities lie
    apart at most and in the mean."""

    copies: int
    useful: int
    fp32: Score
    int8: Score
    largest_difference: float
    mean_difference: float


@dataclass(frozen=True, slots=True)
class Variant:
    """An int8 network, the card that has it beside the fp32 one, and how the two compare."""

    card: Card
    weights: bytes
    comparison: Comparison


def make_variant(
    folder: Path,
    labels: Sequence[Path],
    images: Path,
    recipe: Recipe | None = None,
    calibration_copies: int = CALIBRATION_COPIES,
) -> Variant:
    """Quantise the predictor in `folder` and compare; nothing is written.

    The sides are those that its card says it was trained with. Activation ranges are taken from
    `calibration_copies` of the training side, drawn at random but always the same, undecided ones
    with a vote among them; temperature and scores are from the decided copies of the validation
    side.

    Raises:
        CheckpointError: if the folder holds no usable predictor, or its network cannot be
            quantised.
        ConfigError: as `quantize_onnx`.
        TableError: if labels and images do not fit.
    """
    recipe = recipe or Recipe()
    predictor = UtilityPredictor.load(folder)
    card, whole = load(folder)
    # 1. Copies, made again and checked against the tables.
    sides = load_sides(labels, images, "votes", _shares(card), only=("train", "validation"))
    # 2. The network.
    ranges = list(_batches(card, _draw(sides.train, calibration_copies)))
    weights = quantize_onnx(whole, ranges, recipe)
    # 3. Both on validation copies, with a temperature of its own for each.
    both = (_Network(whole), _Network(weights))
    pairs = [[each.logits(batch) for each in both] for batch in _batches(card, sides.validation)]
    fp32, int8 = (np.concatenate(logits) for logits in zip(*pairs, strict=True))
    truth = np.array([int(copy.target) for copy in sides.validation])
    temperature = fit_temperature(
        torch.from_numpy(int8.astype(np.float32)), torch.from_numpy(truth)
    )
    comparison = compare(
        to_utility(fp32, card.temperature), to_utility(int8, temperature), truth, card,
        temperature, (len(whole), len(weights)),
    )  # fmt: skip
    # 4. What it must repeat wherever it serves.
    utilities, tolerance = _conformance(predictor, both[1], temperature)
    quantized = QuantizedWeights(
        file=ONNX_INT8,
        sha256=digest_bytes(weights),
        temperature=temperature,
        utilities=utilities,
        tolerance=tolerance,
        metrics={
            "validation": dataclasses.asdict(comparison),
            "recipe": dataclasses.asdict(recipe),
            "calibration_copies": sum(map(len, ranges)),
            "labels": [digest_file(table) for table in labels],
            "packages": {package: version(package) for package in _PACKAGES},
        },
    )
    return Variant(_with(card, quantized), weights, comparison)


def record(variant: Variant, folder: Path, max_loss: float = MAX_LOSS) -> None:
    """Write the int8 weights beside the card, and the card anew; each file whole or not at all.

    Raises:
        ConfigError: if the validation AUROC falls by more than `max_loss`.
        CheckpointError: if the network does not repeat its conformance vectors.
    """
    before, after = variant.comparison.fp32.auroc, variant.comparison.int8.auroc
    if before - after > max_loss:
        raise ConfigError(
            f"expected a validation AUROC of at least {before - max_loss:.4f} in int8 (fp32 has "
            f"{before:.4f}, --max-loss is {max_loss:g}), got {after:.4f}; nothing was written; "
            "leave more in float (--first, --exclude) or calibrate on more copies"
        )
    UtilityPredictor(variant.card.variant("int8"), variant.weights)
    with whole_file(folder / ONNX_INT8) as partial:
        partial.write_bytes(variant.weights)
    save_card(variant.card, folder)


def compare(
    fp32: Floats, int8: Floats, truth: npt.NDArray[np.int64], card: Card, temperature: float,
    sizes: tuple[int, int],
) -> Comparison:  # fmt: skip
    """Utilities (N,) in [0, 1] of both precisions against labels (N,) in {0, 1}; `temperature` is
    that of int8, `sizes` are in bytes."""
    apart = np.abs(fp32 - int8)
    return Comparison(
        copies=len(truth),
        useful=int(truth.sum()),
        fp32=_score(fp32, truth, card, card.temperature, sizes[0]),
        int8=_score(int8, truth, card, temperature, sizes[1]),
        largest_difference=float(apart.max()),
        mean_difference=float(apart.mean()),
    )


def to_markdown(comparison: Comparison) -> str:
    """The comparison as a table, and a line below it."""
    rows = [
        ("AUROC", "auroc", ".4f"),
        ("balanced accuracy at utility 1/2", "balanced_accuracy", ".1%"),
        ("useful copies below the review threshold", "rejected_useful", ".2%"),
        ("non-useful copies from the useful threshold on", "passed_non_useful", ".2%"),
        ("temperature", "temperature", ".4f"),
        ("bytes of weights", "size", ",d"),
    ]
    lines = ["| on validation copies | fp32 | int8 |", "|---|---|---|"]
    for title, name, style in rows:
        cells = (format(getattr(each, name), style) for each in (comparison.fp32, comparison.int8))
        lines.append(f"| {title} | {' | '.join(cells)} |")
    lines.append(
        f"\nOn {comparison.useful} useful and {comparison.copies - comparison.useful} non-useful "
        f"copies the utilities differ by {comparison.largest_difference:.3f} at most, by "
        f"{comparison.mean_difference:.4f} in the mean."
    )
    return "\n".join(lines)


class _Network:
    """A network's logits (N, 2), float64, of its input (N, 3, S, S)."""

    def __init__(self, weights: bytes) -> None:
        self._session = open_session(weights)
        self._input = self._session.get_inputs()[0].name

    def logits(self, batch: npt.NDArray[Any]) -> Floats:
        (logits,) = self._session.run(None, {self._input: batch})
        return np.asarray(logits, np.float64)


def _score(
    utility: Floats, truth: npt.NDArray[np.int64], card: Card, temperature: float, size: int
) -> Score:
    scores, labels = torch.from_numpy(utility), torch.from_numpy(truth)
    decided = (scores >= 0.5).long()
    return Score(
        auroc=float(binary_auroc(scores, labels)),
        balanced_accuracy=float(
            multiclass_accuracy(decided, labels, num_classes=2, average="macro")
        ),
        rejected_useful=float((utility[truth == 1] < card.thresholds.review).mean()),
        passed_non_useful=float((utility[truth == 0] >= card.thresholds.useful).mean()),
        temperature=temperature,
        size=size,
    )


def _shares(card: Card) -> Shares:
    """The sides that the predictor was trained with, so that none of what it learned from is taken
    for validation."""
    config = card.training.get("config", {})
    return Shares(
        float(config.get("validation_fraction", _VALIDATION)),
        float(config.get("calibration_fraction", 0.0)),
    )


def _draw(copies: Sequence[LabelledCopy], count: int) -> list[LabelledCopy]:
    drawn = np.random.default_rng(0).permutation(len(copies))[:count]
    return [copies[number] for number in sorted(drawn)]


def _batches(card: Card, copies: Sequence[LabelledCopy]) -> Iterator[npt.NDArray[Any]]:
    """Copies as the network's input, `_BATCH` at a time."""
    for start in range(0, len(copies), _BATCH):
        yield card.preprocess([_pixels(copy.data, card) for copy in copies[start : start + _BATCH]])


def _pixels(data: bytes, card: Card) -> Pixels:
    return decode(data, OWN_COPIES, scale_to=card.scale_to).pixels


def _conformance(
    predictor: UtilityPredictor, network: _Network, temperature: float
) -> tuple[tuple[float, ...], float]:
    """The utilities of the card's conformance images, and how far off another machine may be.

    A CPU that rounds the last bit of a float otherwise moves some activations by a whole step of
    int8, and what follows amplifies it. So the tolerance is twice as much as the utilities move
    when inputs change by a millionth, within `TOLERANCES`.
    """
    random = np.random.default_rng(0)
    utilities, moved = [], 0.0
    for vector in predictor.card.conformance:
        image = predictor.decode(vector.data)
        if predictor.is_too_small(image):
            utilities.append(0.0)
            continue
        batch = predictor.card.preprocess.normalize(predictor.crop(image)[np.newaxis])
        utility = float(to_utility(network.logits(batch), temperature)[0])
        for _ in range(_DRAWS):
            noise = 1 + _NOISE * random.standard_normal(batch.shape)
            other = to_utility(network.logits((batch * noise).astype(batch.dtype)), temperature)
            moved = max(moved, abs(float(other[0]) - utility))
        utilities.append(round(utility, 6))
    if 2 * moved > TOLERANCES[1]:
        log.warning(
            "int8 utilities move by %.3f with the last bits of the input; another CPU may refuse "
            "these weights",
            moved,
        )
    return tuple(utilities), round(float(np.clip(2 * moved, *TOLERANCES)), 4)


def _with(card: Card, quantized: QuantizedWeights) -> Card:
    """The card with its variant, validated as one from a file is."""
    return Card.model_validate(card.model_dump() | {"quantized": quantized.model_dump()})
