"""From labelled images to a classifier on disk; read it from top to bottom."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import numpy.typing as npt

from pipelines.card import ClassifierCard, HeadCard
from pipelines.classifier import Classifier
from pipelines.evaluate import HeadResult, classify_all, evaluate, evaluate_multi_label, known_rows
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
from pipelines.training.stored import fit_digest, once
from utility_gate.checkpoint import Weights, save_card
from utility_gate.files import digest_file, read_source
from utility_gate.images import decode, encode_jpeg
from utility_gate.training.export import synthetic_photo

log = logging.getLogger(__name__)

_PACKAGES = ("utility-gate", "torch", "torchvision", "lightning", "onnx", "onnxruntime", "pillow")
INT8_MAY_LOSE = 0.005
"""Mean accuracy over heads, on the validation side, up to which int8 weights are preferred."""


def train_classifier(job: Job, recipe: Recipe) -> tuple[ClassifierCard, list[HeadResult]]:
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
    lightning.seed_everything(recipe.seed, workers=True, verbose=False)
    net = HeadedNet(recipe.arch, job.heads, recipe.dropout)
    net.trunk.initialize(recipe.init)
    job.out.mkdir(parents=True, exist_ok=True)
    digest = fit_digest(net, recipe, job.examples, job.data)
    rate = once(net, digest, job.out, lambda: fit(net, recipe, train, validation, job.out))
    # 2. As files that serve, each head with the temperature that makes it honest.
    model = to_onnx(net, recipe.side)
    path = export_half(model, net, recipe.side, job.out)
    half = _load(job, recipe, path, _uncalibrated(job.heads))
    heads = _calibrate(half, validation)
    half = _load(job, recipe, path, heads)
    batches = _calibration_batches(half, train)
    int8 = _load(job, recipe, export_int8(model, batches, job.out), heads)
    chosen = _choose(half, int8, validation)
    # 3. How good it is, on images that nobody has looked at.
    results = evaluate(chosen, train, test, views=recipe.views)
    others = evaluate_multi_label(chosen, test)
    card = chosen.card.model_copy(
        update={
            "training": _describe(job, recipe, rate, half, int8, validation),
            "metrics": {
                **{result.head.name: to_numbers(result) for result in results},
                **{name: {"binary_accuracy": asdict(one)} for name, one in others.items()},
            },
            "conformance": _vectors(chosen),
        }
    )
    save_card(card, job.out)
    write_results(results, job.out, *multi_label_tables(others))
    draw_history(job.out / HISTORY, job.out / "learning-curves.png")
    return card, results


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
        preprocess=classifier_preprocess(recipe.side),
        scale_to=recipe.side,
        heads=heads,
        conformance=(),
    )
    return Classifier(plain, weights.read_bytes())


def _calibrate(classifier: Classifier, validation: Sequence[Example]) -> tuple[HeadCard, ...]:
    """Temperatures by the validation side; its probabilities' logarithms are logits."""
    probabilities = classify_all(classifier, validation)
    calibrated = []
    for card in classifier.card.heads:
        rows, targets = known_rows(validation, card.head)
        if card.multi_label or not len(rows):
            calibrated.append(card)
            continue
        logits = np.log(np.maximum(probabilities[card.name][rows], 1e-30))
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


def _choose(half: Classifier, int8: Classifier, validation: Sequence[Example]) -> Classifier:
    full, small = (mean_accuracy(each, validation) for each in (half, int8))
    log.info("validation accuracy: %.4f with fp16 weights, %.4f with int8", full, small)
    return int8 if small >= full - INT8_MAY_LOSE else half


def mean_accuracy(classifier: Classifier, examples: Sequence[Example]) -> float:
    """The mean accuracy on examples of the heads that choose one class."""
    probabilities = classify_all(classifier, examples)
    accuracies = []
    for card in classifier.card.heads:
        rows, targets = known_rows(examples, card.head)
        if len(rows) and not card.multi_label:
            accuracies.append((probabilities[card.name][rows].argmax(1) == targets).mean())
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
    job: Job, recipe: Recipe, rate: float, half: Classifier, int8: Classifier,
    validation: Sequence[Example],
) -> dict[str, Any]:  # fmt: skip
    return {
        "recipe": recipe.model_dump(exclude={"threads", "workers"}),
        "learning_rate": rate,
        "images": {side: len(job.side(side)) for side in SIDES},
        "originals": {side: len({e.group for e in job.side(side)}) for side in SIDES},
        "validation_accuracy": {
            "fp16": mean_accuracy(half, validation),
            "int8": mean_accuracy(int8, validation),
        },
        "packages": {package: version(package) for package in _PACKAGES},
    }
