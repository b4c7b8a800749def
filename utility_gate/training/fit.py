"""The Lightning module of the utility network, and the fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchmetrics.classification import BinaryAUROC, MulticlassAccuracy

from utility_gate.errors import ConfigError
from utility_gate.sides import LabelledCopy
from utility_gate.training.config import TrainConfig
from utility_gate.training.dataset import (
    CopyDataset,
    balanced_sampler,
    predictor_preprocess,
)
from utility_gate.training.module import USEFUL, UtilityNet

Batch = tuple[Tensor, Tensor]


class UtilityModule(lightning.LightningModule):
    """Cross-entropy on (non-useful, useful), soft targets allowed."""

    def __init__(self, net: UtilityNet, config: TrainConfig) -> None:
        super().__init__()
        self.net, self.config = net, config
        self.auroc = BinaryAUROC()
        self.balanced_accuracy = MulticlassAccuracy(num_classes=2, average="macro")

    def training_step(self, batch: Batch, _: int) -> Tensor:
        """One batch's loss."""
        images, targets = batch
        images = images.contiguous(memory_format=torch.channels_last)
        logits = self.net(images).float()
        loss = F.cross_entropy(logits, torch.stack([1 - targets, targets], dim=1))
        self.log("train_loss", loss, prog_bar=True, on_epoch=True, on_step=False)
        return loss

    def validation_step(self, batch: Batch, _: int) -> None:
        """Collect AUROC and balanced accuracy on decided copies."""
        images, targets = batch
        logits = self.net(images).float()
        truth = targets.round().long()
        self.auroc.update(logits.softmax(1)[:, USEFUL], truth)
        self.balanced_accuracy.update(logits.argmax(1), truth)

    def on_validation_epoch_end(self) -> None:
        """Log what early stopping watches."""
        self.log("val_auroc", self.auroc.compute(), prog_bar=True)
        self.log("val_balanced_accuracy", self.balanced_accuracy.compute(), prog_bar=True)
        self.auroc.reset()
        self.balanced_accuracy.reset()

    def configure_optimizers(self) -> Any:
        """The optimizer with its schedule; the trunk learns slower than the head."""
        config = self.config
        parts: list[tuple[nn.Module, float]] = [(self.net.head, config.learning_rate)]
        if not self.net.frozen:
            parts.insert(0, (self.net.trunk, config.learning_rate * config.trunk_rate))
        groups: list[dict[str, Any]] = [
            {"params": part.parameters(), "lr": rate} for part, rate in parts
        ]
        optimizer: torch.optim.Optimizer
        if config.optimizer == "sgd":
            optimizer = torch.optim.SGD(
                groups, momentum=config.momentum, weight_decay=config.weight_decay
            )
        else:
            optimizer = torch.optim.AdamW(groups, weight_decay=config.weight_decay)
        if config.schedule == "constant":
            return optimizer
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            [rate for _, rate in parts],
            total_steps=int(self.trainer.estimated_stepping_batches),
            pct_start=0.2,
            cycle_momentum=False,
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def build_net(config: TrainConfig) -> UtilityNet:
    """The network as training starts with it.

    Raises:
        CheckpointError: if `config.init` cannot be had.
    """
    lightning.seed_everything(config.seed, workers=True, verbose=False)
    net = UtilityNet(config.arch, config.dropout)
    net.initialize(config.init)
    if config.trunk_rate == 0:
        net.freeze_trunk()
    return net.to(memory_format=torch.channels_last)


def fit(
    net: UtilityNet,
    config: TrainConfig,
    train: list[LabelledCopy],
    validation: list[LabelledCopy],
    out: Path,
) -> float:
    """Train `net` in place; it ends as in the epoch with the best validation AUROC, on the CPU,
    in eval mode. Returns that AUROC.

    Raises:
        ConfigError: if training diverged.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    lightning.seed_everything(config.seed, workers=True, verbose=False)
    preprocess = predictor_preprocess(config.side)
    train_loader = DataLoader(
        CopyDataset(train, preprocess, config.scale_to, augment=config.augment),
        config.batch_size,
        sampler=balanced_sampler(train, config.epoch_samples, config.seed),
        num_workers=config.workers,
        persistent_workers=config.workers > 0,
    )
    validation_loader = DataLoader(
        CopyDataset(validation, preprocess, config.scale_to, augment=False),
        config.batch_size,
        num_workers=config.workers,
        persistent_workers=config.workers > 0,
    )
    best = ModelCheckpoint(
        out / "checkpoints", "best", monitor="val_auroc", mode="max", save_weights_only=True,
        enable_version_counter=False,
    )  # fmt: skip
    callbacks: list[lightning.Callback] = [best]
    if config.schedule == "constant":  # one cycle is only worth its end
        callbacks.append(EarlyStopping("val_auroc", mode="max", patience=config.patience))
    trainer = lightning.Trainer(
        max_epochs=config.epochs,
        precision=config.precision,
        accelerator="auto",
        devices=1,
        logger=CSVLogger(out, name="log"),
        callbacks=callbacks,
        enable_model_summary=False,
        log_every_n_steps=20,
        deterministic=True,
    )
    module = UtilityModule(net, config)
    trainer.fit(module, train_loader, validation_loader)
    if best.best_model_score is None:
        raise ConfigError("expected at least one finite validation AUROC, got none; lower the rate")
    stored = torch.load(best.best_model_path, map_location="cpu", weights_only=True)
    module.load_state_dict(stored["state_dict"])
    module.net.cpu().eval().float()
    return float(best.best_model_score)


@torch.no_grad()
def predict_logits(net: UtilityNet, copies: list[LabelledCopy], config: TrainConfig) -> Tensor:
    """Logits (N, 2), float32, on the CPU, of copies as the predictor will see them."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dataset = CopyDataset(copies, predictor_preprocess(config.side), config.scale_to, augment=False)
    loader = DataLoader(dataset, config.batch_size, num_workers=config.workers)
    net.to(device)
    logits = torch.cat([net(images.to(device)).cpu() for images, _ in loader])
    net.cpu()
    return logits
