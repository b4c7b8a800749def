"""From a label table to a checkpoint; read it from top to bottom."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torchmetrics.functional.classification import binary_auroc

from utility_gate.checkpoint import CARD, Card, Weights, save_card
from utility_gate.errors import ConfigError, ImageError
from utility_gate.files import digest_bytes, digest_file
from utility_gate.images import Pixels, decode
from utility_gate.sides import LabelledCopy, choose_rows, count_labels, load_sides, task_of
from utility_gate.tables import read_labels, read_metadata
from utility_gate.training.calibrate import fit_platt
from utility_gate.training.config import TrainConfig
from utility_gate.training.curves import draw_curves
from utility_gate.training.dataset import Copies, FreshCopies, make_copies, predictor_preprocess
from utility_gate.training.export import (
    conformance_vectors,
    export_onnx,
    judge_of,
    synthetic_photo,
)
from utility_gate.training.fit import Fitted, build_net, fit, fit_exactly, head_logits
from utility_gate.training.module import USEFUL, UtilityNet
from utility_gate.training.origin import describe_init, photographs_of, short_digest
from utility_gate.training.risk import choose_thresholds
from utility_gate.training.trainer import processes

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
    cache: Path | None = None,
    conformance_photos: tuple[Path, ...] = (),
    intended_use: str = "",
    limits: tuple[str, ...] = (),
) -> Card | None:
    """Train, calibrate and export a predictor to the folder `out`.

    Held-out copies are counted, never looked at; `evaluate` measures on them. Conformance
    vectors are made from `conformance_photos` (their pixels become part of the card) and from
    a drawn scene. `intended_use` and `limits` go into the card, for people.

    `cache` keeps decoded images and a frozen trunk's features between runs. A run by gradient
    descent that was killed goes on where it stood if it is started again.

    Started by `torchrun`, every process trains and the first one exports; the others return None.

    Raises:
        ConfigError: if `out` holds a predictor already, or the beginning of another run.
        TableError: if labels and images do not fit.
        CheckpointError: if `config.init` or the export cannot be used.
    """
    # 1. Refuse the impossible before anything is computed.
    if (out / CARD).exists():
        raise ConfigError(f"{out}: holds a predictor already; choose another folder")
    net = build_net(config)
    photos = [synthetic_photo(), *(_shrink(path) for path in conformance_photos)]
    described = describe_run(config, labels)
    # 2. Copies, made again and checked against the tables.
    counts = count_labels(labels, config.shares)
    log.info("copies: %s", counts)
    kept = load_sides(
        labels, images, config.targets, config.shares, only=("validation", "calibration")
    )
    # 3. Fit; what is kept is the best epoch by validation AUROC, or the one minimum.
    fitted, trained_on = _fit(net, config, labels, images, out, kept.validation, cache, described)
    if processes()[0] > 0:
        return None
    # 4. Calibrate on validation copies.
    logits, truth = _judge(net, config, kept.validation, cache)
    if fitted is None:
        auroc = float(binary_auroc(logits.softmax(1)[:, USEFUL], torch.from_numpy(truth)))
    else:
        auroc = fitted.auroc
        draw_curves(out)
    temperature, shift = fit_platt(logits, torch.from_numpy(truth))
    # 5. Export, and compare the export with torch; the shift becomes part of the weights.
    net.shift_margin(shift * temperature)
    path = export_onnx(net, config.side, out)
    preprocess = predictor_preprocess(config.side, config.fit)
    # 6. Thresholds by risk on sources of their own, of what was exported.
    bounding = kept.calibration or kept.validation
    judge = judge_of(path, preprocess, config.scale_to, config.min_side, temperature)
    with ThreadPoolExecutor() as pool:
        utility = np.array(list(pool.map(judge, (copy.data for copy in bounding))))
    truth = np.array([int(copy.target) for copy in bounding], np.int64)
    owners = [copy.label.source_digest for copy in bounding]
    thresholds, guarantees = choose_thresholds(utility, truth, owners)
    for guarantee in guarantees:
        if not (guarantee.holds and kept.calibration):
            log.warning("no guarantee for %s: %d sources", guarantee.kind, guarantee.sources)
    promised = bool(kept.calibration)
    if promised and (known := photographs_of(config.init).intersection(map(short_digest, owners))):
        log.warning(
            "no guarantee: the trunk was pretrained on %d of %d photographs that choose thresholds",
            len(known), len(set(owners)),
        )  # fmt: skip
        promised = False
    # 7. The card.
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
        guarantees=guarantees if promised else (),
        intended_use=intended_use,
        limits=limits,
        training={
            "config": config.model_dump(mode="json") | {"init": Path(config.init).name},
            "init": described["init"],
            "labels": [_describe_table(table) for table in labels],
            "copies": counts,
            "trained_on": trained_on,
            "validation_auroc": auroc,
            "pace": {} if fitted is None else fitted.pace,
            "packages": described["packages"],
        },
        conformance=conformance_vectors(judge, photos),
    )
    save_card(card, out)
    return card


def describe_run(config: TrainConfig, labels: Sequence[Path]) -> dict[str, Any]:
    """What must be the same for a run to be continued: what it learns and how, not where."""
    how = config.model_dump(mode="json", exclude={"workers", "threads", "compile"})
    return {
        "config": how,
        "init": describe_init(config.init),
        "labels": [digest_file(table) for table in labels],
        "packages": {package: version(package) for package in _PACKAGES},
    }


def _fit(
    net: UtilityNet,
    config: TrainConfig,
    labels: Sequence[Path],
    images: Path,
    out: Path,
    validation: list[LabelledCopy],
    cache: Path | None,
    described: dict[str, Any],
) -> tuple[Fitted | None, int]:
    """The fit, None where there were no epochs, and how many copies it learned from."""
    if config.on_the_fly:
        rows = choose_rows(labels, config.targets, config.shares, only=("train",))
        folder = cache if cache is not None else out / "cache"
        observed = [(task_of(table), label) for table in labels for label in read_labels(table)]
        fresh: Copies = FreshCopies.make(rows, images, config.scale_to, folder, observed)
        checked = make_copies(validation, config.scale_to, cache)
        return fit(net, config, fresh, checked, out, described), len(rows)
    train = load_sides(labels, images, config.targets, config.shares, only=("train",)).train
    if config.optimizer == "lbfgs":
        fit_exactly(net, config, train, cache)
        return None, len(train)
    copies = [make_copies(side, config.scale_to, cache) for side in (train, validation)]
    return fit(net, config, copies[0], copies[1], out, described), len(train)


def _judge(
    net: UtilityNet, config: TrainConfig, copies: list[LabelledCopy], cache: Path | None
) -> tuple[torch.Tensor, np.ndarray]:
    """Logits (N, 2) and labels (N,) of decided copies; features are cached where they last."""
    logits = head_logits(net, config, copies, cache if net.frozen else None)
    return logits, np.array([int(copy.target) for copy in copies], np.int64)


def _describe_table(table: Path) -> dict[str, Any]:
    """A table's SHA-256 and what it says of its making, but for every encoder's tables."""
    said = {name: value for name, value in read_metadata(table).items() if name != "degradations"}
    return {"sha256": digest_file(table), **said}


def _shrink(path: Path) -> Pixels:
    """A photograph small enough for a card: its longer side 192 pixels."""
    try:
        image = Image.fromarray(decode(path.read_bytes()).pixels)
    except (OSError, ImageError) as error:
        raise ConfigError(f"{path}: expected a photograph for conformance: {error}") from error
    image.thumbnail((_CONFORMANCE_SIDE, _CONFORMANCE_SIDE))
    return np.asarray(image)
