"""A predictor on held-out sources, beside the two trivial gates.

The trivial gates: (a) a threshold on the JPEG quality read from the file's quantisation tables;
(b) a threshold on a small ready-made classifier's own top-1 probability. Their thresholds are
the best ones for the training side; the predictor's is 1/2 of its calibrated utility. The
re-saved column repeats the measurement on the same copies saved once more as JPEG at quality 95,
as happens to photographs on their way: their labels stay, their tables no longer tell.
"""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
import torch
from torchmetrics.functional.classification import binary_auroc, binary_calibration_error

from utility_gate.degrade import OWN_COPIES, Jpeg, decode_copy
from utility_gate.errors import TableError
from utility_gate.files import digest_bytes
from utility_gate.images import decode
from utility_gate.measure import estimate_jpeg_quality
from utility_gate.predictor import UtilityPredictor
from utility_gate.sides import LabelledCopy, Shares, count_labels, load_sides
from utility_gate.tables import read_metadata, read_observations

log = logging.getLogger(__name__)

RESAVED_QUALITY = 95
BOOTSTRAPS = 1000
ECE_BINS = 10

Scores = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its 95 % interval, by bootstrap over sources."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class SetResult:
    """One gate on one source set."""

    useful: int
    non_useful: int
    balanced_accuracy: float
    auroc: float


@dataclass(frozen=True, slots=True)
class GateResult:
    """One gate on the test side; `threshold` is on its own score, useful at or above. `by_set`
    has the folders of the sources (the first part of their paths) that hold both classes."""

    name: str
    threshold: float
    balanced_accuracy: Estimate
    auroc: Estimate
    resaved_balanced_accuracy: float | None
    by_set: dict[str, SetResult]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """All gates on the same decided copies; ECE is the predictor's, `balanced` weighs the classes
    equally. `undecided` held-out copies have no label and are not judged. `tables` holds the
    SHA-256 of what was measured on."""

    gates: list[GateResult]
    ece: float
    ece_balanced: float
    sources: int
    useful: int
    non_useful: int
    undecided: int
    tables: dict[str, str]


def balanced_accuracy(useful: npt.NDArray[np.bool_], labels: Labels) -> float:
    """Mean of the two classes' recalls, for decisions (N,) and labels (N,) in {0, 1}."""
    return float((useful[labels == 1].mean() + (~useful[labels == 0]).mean()) / 2)


def best_threshold(scores: Scores, labels: Labels) -> float:
    """The threshold (useful at or above) with the best balanced accuracy on these scores."""
    candidates = np.unique(scores)
    middles = (candidates[1:] + candidates[:-1]) / 2
    candidates = np.concatenate([candidates[:1], middles, candidates[-1:] + 1e-9])
    if len(candidates) > 512:
        candidates = np.quantile(candidates, np.linspace(0, 1, 512))
    accuracies = [balanced_accuracy(scores >= candidate, labels) for candidate in candidates]
    return float(candidates[int(np.argmax(accuracies))])


def evaluate(
    predictor: UtilityPredictor,
    labels: Path,
    images: Path,
    observations: Path | None = None,
    reference: str | None = None,
) -> Evaluation:
    """Judge the held-out copies with the predictor, as it serves, and with the trivial gates.

    `reference` names the classifier of gate (b) in `observations`; it should have no vote in
    the labels. Without it gate (b) is left out.

    Raises:
        TableError: if the tables, the images and the reference do not fit each other.
    """
    if reference is not None and reference in read_metadata(labels).get("voters", []):
        raise TableError(f"expected a reference without a vote in {labels}, got {reference}")
    sides = load_sides([labels], images, "unanimous", Shares())
    known = sides.train
    known_labels, test_labels = _labels(known), _labels(sides.test)
    sources = np.array([copy.label.source for copy in sides.test])
    folders = np.array([source.split("/")[0] if "/" in source else "." for source in sources])
    utilities = _utilities(predictor, [copy.data for copy in sides.test])
    resaved = [Jpeg(RESAVED_QUALITY).apply(decode_copy(copy.data)) for copy in sides.test]
    resaved_utilities = _utilities(predictor, resaved)

    def result(
        name: str, threshold: float, scores: Scores, resaved_scores: Scores | None
    ) -> GateResult:
        again = (
            None
            if resaved_scores is None
            else balanced_accuracy(resaved_scores >= threshold, test_labels)
        )
        accuracy = _bootstrap(
            lambda rows: balanced_accuracy(scores[rows] >= threshold, test_labels[rows]),
            sources,
            test_labels,
        )
        auroc = _bootstrap(
            lambda rows: _auroc(scores[rows], test_labels[rows]), sources, test_labels
        )
        by_set = {}
        for folder in np.unique(folders):
            rows = folders == folder
            useful = int(test_labels[rows].sum())
            if 0 < useful < rows.sum():
                by_set[str(folder)] = SetResult(
                    useful=useful,
                    non_useful=int(rows.sum()) - useful,
                    balanced_accuracy=balanced_accuracy(
                        scores[rows] >= threshold, test_labels[rows]
                    ),
                    auroc=_auroc(scores[rows], test_labels[rows]),
                )
        return GateResult(name, threshold, accuracy, auroc, again, by_set)

    quality_threshold = best_threshold(_qualities([c.data for c in known]), known_labels)
    gates = [
        result(
            f"{predictor.card.name} {predictor.card.version}", 0.5, utilities, resaved_utilities
        ),
        result(
            "(a) JPEG quality in the file",
            quality_threshold,
            _qualities([copy.data for copy in sides.test]),
            _qualities(resaved),
        ),
    ]
    if observations is not None and reference is not None:
        own = _reference_confidence(observations, reference)
        threshold = best_threshold(_look_up(own, known, reference), known_labels)
        scores = _look_up(own, sides.test, reference)
        gates.append(result(f"(b) confidence of {reference}", threshold, scores, None))
    return Evaluation(
        gates=gates,
        ece=_ece(utilities, test_labels),
        ece_balanced=balanced_ece(utilities, test_labels),
        sources=len(set(sources)),
        useful=int((test_labels == 1).sum()),
        non_useful=int((test_labels == 0).sum()),
        undecided=count_labels([labels], Shares())["test"]["undecided"],
        tables={
            path.name: digest_bytes(path.read_bytes())
            for path in (labels, observations)
            if path is not None
        },
    )


def to_markdown(evaluation: Evaluation) -> str:
    """The evaluation as a table."""
    lines = [
        f"Held-out sources with decided copies: {evaluation.sources}; copies: {evaluation.useful} "
        f"useful, {evaluation.non_useful} non-useful ({evaluation.undecided} undecided ones have "
        "no label and are left out).",
        "",
        "| gate | balanced accuracy | AUROC | re-saved at quality 95 |",
        "|---|---|---|---|",
    ]
    for gate in evaluation.gates:
        again = gate.resaved_balanced_accuracy
        shown = "not measured" if again is None else f"{again:.1%}"
        accuracy, auroc = gate.balanced_accuracy, gate.auroc
        lines.append(
            f"| {gate.name} | {accuracy.value:.1%} ({accuracy.low:.1%} to {accuracy.high:.1%}) "
            f"| {auroc.value:.3f} ({auroc.low:.3f} to {auroc.high:.3f}) | {shown} |"
        )
    sets = evaluation.gates[0].by_set
    if len(sets) > 1:
        lines += [
            "",
            "| source set | copies | gate | balanced accuracy | AUROC |",
            "|---|---|---|---|---|",
        ]
    for name in sets if len(sets) > 1 else ():
        for gate in evaluation.gates:
            part = gate.by_set[name]
            copies = f"{part.useful} useful, {part.non_useful} non-useful"
            lines.append(
                f"| {name} | {copies} | {gate.name} | {part.balanced_accuracy:.1%} | "
                f"{part.auroc:.3f} |"
            )
    lines += [
        "",
        f"Calibration error (ECE, {ECE_BINS} bins): {evaluation.ece_balanced:.3f} with the classes "
        f"weighed equally, {evaluation.ece:.3f} as they come.",
    ]
    return "\n".join(lines)


def _labels(copies: list[LabelledCopy]) -> Labels:
    return np.array([copy.label.label for copy in copies], np.int64)


def _utilities(predictor: UtilityPredictor, images: list[bytes]) -> Scores:
    def judge(data: bytes) -> float:
        image = predictor.decode(data, OWN_COPIES)
        return predictor.judge(image, predictor.crop(image))

    with ThreadPoolExecutor() as pool:
        return np.array(list(pool.map(judge, images)))


def _qualities(images: list[bytes]) -> Scores:
    def read(data: bytes) -> float:
        table = decode(data, OWN_COPIES, scale_to=1).luma_quantization
        return float(estimate_jpeg_quality(table)) if table else 100.0

    return np.array([read(data) for data in images])


def _reference_confidence(observations: Path, reference: str) -> dict[str, float]:
    if read_metadata(observations).get("task", "classification") != "classification":
        raise TableError(f"{observations}: expected observations of classifiers for a reference")
    table, _ = read_observations(observations, ["network", "image_digest", "top1"])
    own = table.filter(pc.equal(table["network"].cast("string"), reference))
    if not len(own):
        names = sorted(set(table["network"].to_pylist()))
        raise TableError(f"{observations}: expected one of {names}, got {reference!r}")
    return dict(zip(own["image_digest"].to_pylist(), own["top1"].to_pylist(), strict=True))


def _look_up(own: dict[str, float], copies: list[LabelledCopy], reference: str) -> Scores:
    missing = [c.label.source for c in copies if c.label.image_digest not in own]
    if missing:
        raise TableError(f"{reference} observed no copy of {missing[0]} with these bytes")
    return np.array([own[copy.label.image_digest] for copy in copies])


def _auroc(scores: Scores, labels: Labels) -> float:
    return float(binary_auroc(torch.from_numpy(_ranks(scores)), torch.from_numpy(labels)))


def _ranks(scores: Scores) -> Scores:
    """Scores on [0, 1] with the same order: torchmetrics takes others for logits."""
    unique, inverse = np.unique(scores, return_inverse=True)
    return np.asarray(inverse, np.float64) / max(len(unique) - 1, 1)


def _ece(utilities: Scores, labels: Labels) -> float:
    scores = torch.from_numpy(utilities)
    return float(binary_calibration_error(scores, torch.from_numpy(labels), n_bins=ECE_BINS))


def balanced_ece(utilities: Scores, labels: Labels) -> float:
    """Expected calibration error with each class weighing 1/2 in all (`ECE_BINS` equal bins).

    Of utilities (N,) in [0, 1] and labels (N,) in {0, 1}; torchmetrics knows no weights.
    """
    weights = np.where(labels == 1, 0.5 / (labels == 1).sum(), 0.5 / (labels == 0).sum())
    bins = np.minimum((utilities * ECE_BINS).astype(np.int64), ECE_BINS - 1)
    gaps = np.bincount(bins, weights * (utilities - labels), minlength=ECE_BINS)
    return float(np.abs(gaps).sum())


def _bootstrap(
    statistic: Any, sources: npt.NDArray[np.str_], labels: Labels, seed: int = 0
) -> Estimate:
    """Value on all rows; interval from resampling sources with all their copies."""
    random = np.random.default_rng(seed)
    names, owner = np.unique(sources, return_inverse=True)
    rows_of = [np.flatnonzero(owner == number) for number in range(len(names))]
    values: list[float] = []
    while len(values) < BOOTSTRAPS:
        drawn = random.integers(len(names), size=len(names))
        rows = np.concatenate([rows_of[number] for number in drawn])
        if 0 < labels[rows].sum() < len(rows):
            values.append(statistic(rows))
    low, high = np.quantile(values, [0.025, 0.975])
    return Estimate(float(statistic(np.arange(len(labels)))), float(low), float(high))
