"""How fast training goes, and how much of its time it waits for data."""

from __future__ import annotations

import time
from typing import Any

import lightning
import torch


class Pace(lightning.Callback):
    """Logs, for each epoch, `images_per_second` of all processes and `waiting_share`, the share
    of the time between the first batch and the last in which no step was under way."""

    def __init__(self) -> None:
        self._began = self._ended = self._waited = 0.0
        self._images = 0

    def on_train_epoch_start(self, *_: Any) -> None:
        """Start the clock with the first batch: what starts the workers is not counted."""
        self._began = self._ended = self._waited = 0.0
        self._images = 0

    def on_train_batch_start(self, *_: Any) -> None:
        """A batch is there."""
        now = time.monotonic()
        if self._began:
            self._waited += now - self._ended
        else:
            self._began = now

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,  # noqa: ARG002
        pl_module: lightning.LightningModule,  # noqa: ARG002
        outputs: Any,  # noqa: ARG002
        batch: Any,
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        """A step is done, on an accelerator too."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self._ended = time.monotonic()
        self._images += len(batch[0])

    def on_train_epoch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Log both."""
        took = self._ended - self._began
        if took > 0:
            pl_module.log("images_per_second", self._images / took * trainer.world_size)
            pl_module.log("waiting_share", self._waited / took)
