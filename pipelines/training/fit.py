"""The Lightning module of a classifier, and its two-stage fit."""

from __future__ import annotations

import csv
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping
from lightning.pytorch.tuner.tuning import Tuner
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchmetrics import MeanMetric

from pipelines.examples import Example
from pipelines.training.config import Recipe
from pipelines.training.dataset import (
    ImageSetDataset,
    Targets,
    class_sampler,
    count_classes,
)
from pipelines.training.losses import UNKNOWN, class_alphas, focal_loss, multi_label_loss
from pipelines.training.network import HeadedNet
from pipelines.training.runs import begin_fit, fit_best, loader_options, make_trainer
from utility_gate.errors import ConfigError

log = logging.getLogger(__name__)

Batch = tuple[Tensor, Targets]
HISTORY = "history.csv"
_FIRST_RATE = 3e-3
"""Where the learning-rate finder's own optimizer starts; it leaves no trace."""


class ClassifierModule(lightning.LightningModule):
    """One stage of a fit: the heads alone, or everything."""

    def __init__(
        self, net: HeadedNet, recipe: Recipe, alphas: dict[str, Tensor], *, heads_only: bool
    ) -> None:
        super().__init__()
        self.net, self.recipe, self.alphas = net, recipe, alphas
        self.heads_only = heads_only
        self.learning_rate = recipe.learning_rate or _FIRST_RATE
        self.val_loss = MeanMetric(nan_strategy=math.inf)  # its own way is to leave NaN out
        self.hits = {head.name: MeanMetric() for head in net.heads}  # on the CPU

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The sum of the heads' losses, and the logits by head."""
        images, targets = batch
        logits, _ = self.net(images.contiguous(memory_format=torch.channels_last))
        parts = self.net.split_logits(logits.float())
        gamma = self.recipe.gamma if self.recipe.loss == "focal" else 0.0
        total = logits.new_zeros((), dtype=torch.float32)
        for head in self.net.heads:
            part, target = parts[head.name], targets[head.name]
            if head.multi_label:
                total = total + multi_label_loss(part, target)
            else:
                total = total + focal_loss(part, target, self.alphas.get(head.name), gamma)
        return total, parts

    def training_step(self, batch: Batch, _: int) -> Tensor:
        """One batch's loss."""
        loss, _parts = self.loss(batch)
        self.log("train_loss", loss, prog_bar=True, on_epoch=True, on_step=False)
        return loss

    def validation_step(self, batch: Batch, _: int) -> None:
        """Collect the loss and each head's accuracy."""
        loss, parts = self.loss(batch)
        self.val_loss.update(loss, len(batch[0]))
        for head in self.net.heads:
            right = hits(parts[head.name], batch[1][head.name], multi_label=head.multi_label)
            if len(right):
                self.hits[head.name].update(right.cpu())

    def on_validation_epoch_end(self) -> None:
        """Log what schedules and early stopping watch."""
        self.log("val_loss", self.val_loss.compute(), prog_bar=True)
        self.val_loss.reset()
        for name, metric in self.hits.items():
            if metric.update_count:
                self.log(f"val_accuracy_{name}", metric.compute(), prog_bar=True)
            metric.reset()

    def configure_optimizers(self) -> Any:
        """AdamW and the schedule; the trunk's earlier half learns slowest."""
        recipe, net = self.recipe, self.net
        parts: list[tuple[list[nn.Parameter], float]] = []
        if not self.heads_only:
            blocks = zip(net.trunk.blocks(), recipe.block_rates, strict=True)
            parts += [(block, self.learning_rate * rate) for block, rate in blocks if rate]
        parts.append((list(net.classify.parameters()), self.learning_rate))
        groups = [{"params": parameters, "lr": rate} for parameters, rate in parts]
        optimizer = torch.optim.AdamW(groups, weight_decay=recipe.weight_decay)
        if self.heads_only:
            return optimizer
        steps = int(self.trainer.estimated_stepping_batches)
        by_step = {"interval": "step"}
        match recipe.schedule:
            case "plateau":
                plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
                    optimizer, factor=0.1, patience=recipe.plateau_epochs
                )
                schedule: dict[str, Any] = {"scheduler": plateau, "monitor": "val_loss"}
            case "cyclic":
                cycle = max(1, steps * recipe.cycle_epochs // recipe.epochs)
                warm = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, cycle)
                schedule = {"scheduler": warm, **by_step}
            case _:
                one = torch.optim.lr_scheduler.OneCycleLR(
                    optimizer, [rate for _, rate in parts],
                    total_steps=max(5, steps),  # of 4 it divides by zero
                    pct_start=0.25, cycle_momentum=False,
                )  # fmt: skip
                schedule = {"scheduler": one, **by_step}
        return {"optimizer": optimizer, "lr_scheduler": schedule}


def hits(logits: Tensor, targets: Tensor, *, multi_label: bool) -> Tensor:
    """1 where a known label is predicted, else 0, float (M,): an entry an image, or, with
    `multi_label`, an entry an image and class (seed 001's binary accuracy)."""
    right = (logits > 0) == (targets > 0) if multi_label else logits.argmax(1) == targets
    return right[targets != UNKNOWN].float()


def fit(
    net: HeadedNet, recipe: Recipe, train: Sequence[Example], validation: Sequence[Example],
    out: Path,
) -> float:  # fmt: skip
    """Train `net` in place: the heads, then all of it. It ends as in the epoch with the lowest
    validation loss, on the CPU, in eval mode. `out` gets `history.csv`. Returns the heads'
    learning rate.

    Raises:
        ConfigError: if a side is empty or training diverged.
    """
    if not train or not validation:
        raise ConfigError(
            f"expected images to train and to validate on, got {len(train)} and {len(validation)}"
        )
    begin_fit(recipe)
    net.to(memory_format=torch.channels_last)
    loaders = _loaders(net, recipe, train, validation)
    alphas = {
        head.name: class_alphas(count_classes(train, head))
        for head in net.heads
        if recipe.class_weights and not head.multi_label
    }
    rows: list[dict[str, str]] = []
    net.freeze_trunk()
    module = ClassifierModule(net, recipe, alphas, heads_only=True)
    if not recipe.learning_rate:
        module.learning_rate = _find_rate(module, recipe, loaders, out)
        log.info("learning rate found: %.2g", module.learning_rate)
    rate = module.learning_rate
    if recipe.head_epochs:
        rows += _run(module, recipe, recipe.head_epochs, loaders, out / "heads", [])
    net.freeze_trunk(frozen=False)
    if not recipe.block_rates[0]:
        net.trunk.freeze_early()
    if recipe.epochs:
        module = ClassifierModule(net, recipe, alphas, heads_only=False)
        module.learning_rate = rate
        stops: list[Callback] = []
        if recipe.schedule == "plateau":
            stops.append(EarlyStopping("val_loss", patience=recipe.patience))
        rows += _run(module, recipe, recipe.epochs, loaders, out / "all", stops)
    _write_history(rows, out / HISTORY)
    net.cpu().eval().float()
    return rate


def _loaders(
    net: HeadedNet, recipe: Recipe, train: Sequence[Example], validation: Sequence[Example]
) -> tuple[DataLoader[Batch], DataLoader[Batch]]:
    common = loader_options(recipe, recipe.batch_size)
    data = ImageSetDataset(train, net.heads, recipe, augment=True)
    sampler = class_sampler(train, net.heads[0], recipe.seed) if recipe.balanced else None
    generator = torch.Generator().manual_seed(recipe.seed)
    whole = len(train) >= recipe.batch_size  # a last batch of one image has no statistics
    return (
        DataLoader(
            data, sampler=sampler, shuffle=sampler is None, generator=generator, drop_last=whole,
            **common,
        ),
        DataLoader(ImageSetDataset(validation, net.heads, recipe, augment=False), **common),
    )  # fmt: skip


def _find_rate(
    module: ClassifierModule, recipe: Recipe, loaders: tuple[Any, Any], out: Path
) -> float:
    """The rate at which the loss falls fastest (Smith, 2017): seed 000, section 5."""
    out.mkdir(parents=True, exist_ok=True)
    trainer = make_trainer(recipe, -1, out / "finder", [], deterministic=True)
    finder = Tuner(trainer).lr_find(
        module, *loaders, min_lr=1e-4, max_lr=0.3, num_training=60, update_attr=False
    )
    found = finder.suggestion() if finder is not None else None
    if found is None:
        raise ConfigError("the learning-rate finder found no rate; set learning_rate")
    return float(found)


def _run(
    module: ClassifierModule, recipe: Recipe, epochs: int, loaders: tuple[Any, Any], out: Path,
    stops: list[Callback],
) -> list[dict[str, str]]:  # fmt: skip
    fit_best(module, recipe, epochs, loaders, out, stops, deterministic=True)
    return _merge(out / "metrics.csv", "heads" if module.heads_only else "all")


def _merge(path: Path, stage: str) -> list[dict[str, str]]:
    """One row an epoch of Lightning's CSV, which has one for training and one for validation."""
    epochs: dict[str, dict[str, str]] = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            merged = epochs.setdefault(row["epoch"], {"stage": stage, "epoch": row["epoch"]})
            merged |= {name: value for name, value in row.items() if value and name != "step"}
    return list(epochs.values())


def _write_history(rows: list[dict[str, str]], path: Path) -> None:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
