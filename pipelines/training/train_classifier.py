"""From labelled images to a classifier on disk; read it from top to bottom."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipelines.card import ClassifierCard, HeadCard
from pipelines.classifier import Classifier, Floats
from pipelines.evaluate import HeadResult, classify_all, evaluate, known_rows
from pipelines.examples import SIDES, Example, check_labels, check_sides
from pipelines.heads import Head
from pipelines.job import Job
from pipelines.measure import fit_temperature
from pipelines.pictures import draw_history
from pipelines.results import to_numbers, write_results
from pipelines.tables import multi_label_tables
from pipelines.training.config import Recipe
from pipelines.training.dataset import classifier_preprocess
from pipelines.training.export import (
    CALIBRATION_IMAGES,
    export_half,
    export_int8,
    make_vector,
    to_onnx,
)
from pipelines.training.fit import HISTORY, fit
from pipelines.training.network import HeadedNet
from pipelines.training.runs import package_versions, seed_run
from pipelines.training.stored import fit_digest, once
from utility_gate.checkpoint import Weights, save_card
from utility_gate.files import digest_file, read_source
from utility_gate.images import decode, encode_jpeg
from utility_gate.training.export import synthetic_photo

log = logging.getLogger(__name__)

INT8_MAY_LOSE = 0.005
"""Mean accuracy over heads, on the validation side, up to which int8 weights are preferred."""


def train_classifier(job: Job, recipe: Recipe) -> tuple[ClassifierCard, tuple[HeadResult, ...]]:
    """Fit, calibrate, export, and measure on the test side, as it serves.

    A fit that `out` holds already is not repeated.

    Raises:
        TableError: if an image cannot be read or has an unknown class.
        CheckpointError: if initial weights cannot be had, `out` holds another network, or an
            export computes something else than torch.
        ConfigError: if training diverged.
    """
    # 1. The network, fitted.
    check_labels(job.examples, job.heads)
    train, validation, test = job.side("train"), job.side("validation"), job.side("test")
    check_sides(train, test, job.heads)
    seed_run(recipe)
    net = HeadedNet(recipe.arch, job.heads, recipe.dropout)
    net.trunk.initialize(recipe.init)
    job.out.mkdir(parents=True, exist_ok=True)
    digest = fit_digest(net, recipe, job.examples, job.data)
    rate = once(net, digest, job.out, lambda: fit(net, recipe, train, validation, job.out))
    # 2. As files that serve, each head with the temperature that makes it honest.
    model = to_onnx(net, recipe.served)
    path = export_half(model, net, recipe.served, job.out)
    half = _load(job, recipe, path, _uncalibrated(job.heads))
    said = classify_all(half, validation)
    heads = _calibrate(half.card.heads, said, validation)
    half = _load(job, recipe, path, heads)
    batches = _calibration_batches(half, train)
    int8 = _load(job, recipe, export_int8(model, batches, job.out), heads)
    # A temperature changes how sure the likeliest class is, not which it is.
    accuracies = {
        "fp16": _mean_accuracy(heads, said, validation), "int8": mean_accuracy(int8, validation),
    }  # fmt: skip
    chosen = int8 if _prefers_int8(accuracies) else half
    # 3. How good it is, on images that nobody has looked at.
    measured = evaluate(chosen, train, test, views=recipe.views)
    others = {n: {"binary_accuracy": asdict(one)} for n, one in measured.multi_label.items()}
    card = chosen.card.model_copy(
        update={
            "training": _describe(job, recipe, rate, accuracies),
            "metrics": {r.head.name: to_numbers(r) for r in measured.heads} | others,
            "conformance": _vectors(chosen),
        }
    )
    save_card(card, job.out)
    write_results(measured.heads, job.out, *multi_label_tables(measured.multi_label))
    draw_history(job.out / HISTORY, job.out / "learning-curves.png")
    return card, measured.heads


def _uncalibrated(heads: Sequence[Head]) -> tuple[HeadCard, ...]:
    return tuple(
        HeadCard(name=head.name, classes=head.classes, multi_label=head.multi_label)
        for head in heads
    )


def _load(job: Job, recipe: Recipe, weights: Path, heads: tuple[HeadCard, ...]) -> Classifier:
    plain = ClassifierCard.model_construct(
        name=job.name,
        version=job.release,
        weights=Weights(file=weights.name, sha256=digest_file(weights)),
        preprocess=classifier_preprocess(recipe.served),
        scale_to=recipe.served,
        heads=heads,
        conformance=(),
    )
    return Classifier(plain, weights.read_bytes())


def _calibrate(
    heads: Sequence[HeadCard], said: Mapping[str, Floats], validation: Sequence[Example]
) -> tuple[HeadCard, ...]:
    """Temperatures by the validation side; its probabilities' logarithms are logits."""
    calibrated = []
    for card in heads:
        rows, targets = known_rows(validation, card.head)
        if card.multi_label or not len(rows):
            calibrated.append(card)
            continue
        logits = np.log(np.maximum(said[card.name][rows], 1e-30))
        temperature = round(fit_temperature(logits, targets), 4)
        calibrated.append(card.model_copy(update={"temperature": temperature}))
    return tuple(calibrated)


def _calibration_batches(
    classifier: Classifier, train: Sequence[Example]
) -> list[npt.NDArray[np.float32]]:
    """Network inputs of every so many-th training image, one each."""
    step = max(1, len(train) // CALIBRATION_IMAGES)
    preprocess = classifier.card.preprocess
    return [
        preprocess([classifier.decode(read_source(example.path)).pixels])
        for example in train[::step][:CALIBRATION_IMAGES]
    ]


def _prefers_int8(accuracies: Mapping[str, float]) -> bool:
    full, small = accuracies["fp16"], accuracies["int8"]
    log.info("validation accuracy: %.4f with fp16 weights, %.4f with int8", full, small)
    return small >= full - INT8_MAY_LOSE


def mean_accuracy(classifier: Classifier, examples: Sequence[Example]) -> float:
    """The mean accuracy on examples of the heads that choose one class."""
    return _mean_accuracy(classifier.card.heads, classify_all(classifier, examples), examples)


def _mean_accuracy(
    heads: Sequence[HeadCard], said: Mapping[str, Floats], examples: Sequence[Example]
) -> float:
    accuracies = []
    for card in heads:
        rows, targets = known_rows(examples, card.head)
        if len(rows) and not card.multi_label:
            accuracies.append((said[card.name][rows].argmax(1) == targets).mean())
    return float(np.mean(accuracies))


def _vectors(classifier: Classifier) -> tuple[Any, ...]:
    """What the network says of a drawn scene, well and badly compressed."""
    vectors = []
    for quality in (90, 10):
        data = encode_jpeg(synthetic_photo(), quality)
        pixels = decode(data, scale_to=classifier.card.scale_to).pixels
        (answers,) = classifier.classify([pixels])
        vectors.append(make_vector(data, answers))
    return tuple(vectors)


def _describe(
    job: Job, recipe: Recipe, rate: float, accuracies: Mapping[str, float]
) -> dict[str, Any]:
    return {
        "recipe": recipe.model_dump(exclude={"threads", "workers"}),
        "learning_rate": rate,
        "images": {side: len(job.side(side)) for side in SIDES},
        "originals": {side: len({e.group for e in job.side(side)}) for side in SIDES},
        "validation_accuracy": dict(accuracies),
        "packages": package_versions(),
    }
