"""From a label table to a checkpoint; read it from top to bottom."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from utility_gate.checkpoint import CARD, Card, Weights, save_card
from utility_gate.errors import ConfigError, ImageError
from utility_gate.files import digest_bytes
from utility_gate.images import Pixels, decode
from utility_gate.sides import Shares, count_labels, load_sides
from utility_gate.tables import read_metadata
from utility_gate.training.calibrate import choose_thresholds, fit_temperature
from utility_gate.training.config import TrainConfig
from utility_gate.training.dataset import predictor_preprocess
from utility_gate.training.export import conformance_vectors, export_onnx, synthetic_photo
from utility_gate.training.fit import build_net, fit, predict_logits
from utility_gate.training.module import USEFUL, describe_init

log = logging.getLogger(__name__)

_PACKAGES = ("utility-gate", "torch", "torchvision", "lightning", "onnx", "pillow", "numpy")
_CONFORMANCE_SIDE = 192


def train(
    config: TrainConfig,
    labels: Sequence[Path],
    images: Path,
    out: Path,
    *,
    name: str,
    release: str,
    task: str = "general",
    conformance_photos: tuple[Path, ...] = (),
) -> Card:
    """Train, calibrate and export a predictor to the folder `out`.

    Held-out copies are counted, never looked at; `evaluate` measures on them. Conformance
    vectors are made from `conformance_photos` (their pixels become part of the card) and from
    a drawn scene.

    Raises:
        ConfigError: if `out` holds a predictor already.
        TableError: if labels and images do not fit.
        CheckpointError: if `config.init` or the export cannot be used.
    """
    # 1. Refuse the impossible before anything is computed.
    if (out / CARD).exists():
        raise ConfigError(f"{out}: holds a predictor already; choose another folder")
    net = build_net(config)
    photos = [synthetic_photo(), *(_shrink(path) for path in conformance_photos)]
    # 2. Copies, made again and checked against the table.
    shares = Shares(config.validation_fraction, config.calibration_fraction)
    sides = load_sides(labels, images, config.targets, shares)
    counts = count_labels(labels, shares)
    log.info("copies: %s", counts)
    # 3. Fit; the epoch with the best validation AUROC is kept.
    auroc = fit(net, config, sides.train, sides.validation, out)
    # 4. Calibrate and choose thresholds on validation copies.
    logits = predict_logits(net, sides.validation, config)
    truth = torch.tensor([int(copy.target) for copy in sides.validation])
    temperature = fit_temperature(logits, truth)
    utility = (logits / temperature).softmax(1)[:, USEFUL]
    thresholds = choose_thresholds(utility, truth)
    # 5. Export, and compare the export with torch.
    path = export_onnx(net, config.side, out)
    preprocess = predictor_preprocess(config.side)
    # 6. The card.
    card = Card(
        name=name,
        version=release,
        task=task,
        weights=Weights(file=path.name, sha256=digest_bytes(path.read_bytes())),
        preprocess=preprocess,
        scale_to=config.scale_to,
        min_side=config.min_side,
        temperature=temperature,
        thresholds=thresholds,
        training={
            "config": config.model_dump() | {"init": Path(config.init).name},
            "init": describe_init(config.init),
            "labels": [
                {"sha256": digest_bytes(table.read_bytes()), **read_metadata(table)}
                for table in labels
            ],
            "copies": counts,
            "trained_on": len(sides.train),
            "validation_auroc": auroc,
            "packages": {package: version(package) for package in _PACKAGES},
        },
        conformance=conformance_vectors(path, preprocess, config.scale_to, temperature, photos),
    )
    save_card(card, out)
    return card


def _shrink(path: Path) -> Pixels:
    """A photograph small enough for a card: its longer side 192 pixels."""
    try:
        image = Image.fromarray(decode(path.read_bytes()).pixels)
    except (OSError, ImageError) as error:
        raise ConfigError(f"{path}: expected a photograph for conformance: {error}") from error
    image.thumbnail((_CONFORMANCE_SIDE, _CONFORMANCE_SIDE))
    return np.asarray(image)
