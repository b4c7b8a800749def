"""The utility network as Lightning trains it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics.classification import BinaryAUROC, MulticlassAccuracy

from utility_gate.training.config import TrainConfig
from utility_gate.training.module import USEFUL, UtilityNet

Batch = tuple[Tensor, Tensor]


class UtilityModule(lightning.LightningModule):
    """Cross-entropy on (non-useful, useful), soft targets allowed; `compiled` runs the network
    through torch.compile, and leaves it as it is for whoever exports it afterwards."""

    def __init__(self, net: UtilityNet, config: TrainConfig, *, compiled: bool = False) -> None:
        super().__init__()
        self.net, self.config = net, config
        faster = torch.compile(net) if compiled else net
        # In a function, or it would be a second network in every checkpoint.
        self.look: Callable[[Tensor], Tensor] = lambda images: faster(images)
        self.auroc = BinaryAUROC()
        self.balanced_accuracy = MulticlassAccuracy(num_classes=2, average="macro")

    def on_train_epoch_start(self) -> None:
        """Random numbers (dropout) by epoch: a resumed run draws what it would have drawn."""
        torch.manual_seed((self.config.seed << 32) + (self.current_epoch << 10) + self.global_rank)

    def training_step(self, batch: Batch, _: int) -> Tensor:
        """One batch's loss."""
        images, targets = batch
        images = images.contiguous(memory_format=torch.channels_last)
        logits = self.look(images).float()
        smoothed = targets + self.config.label_smoothing * (0.5 - targets)
        loss = F.cross_entropy(logits, torch.stack([1 - smoothed, smoothed], dim=1))
        self.log("train_loss", loss, prog_bar=True, on_epoch=True, on_step=False, sync_dist=True)
        return loss

    def validation_step(self, batch: Batch, _: int) -> None:
        """Collect AUROC and balanced accuracy on decided copies."""
        images, targets = batch
        logits = self.look(images).float()
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
