"""Lightning's trainer as every fit here has it: logs, checkpoints that survive a kill, devices."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from utility_gate.errors import ConfigError
from utility_gate.files import whole_file
from utility_gate.training.config import TrainConfig
from utility_gate.training.pace import Pace

LAST = "last.ckpt"
BEST = "best.ckpt"
LOG = "log"


class WholeCheckpoints(TorchCheckpointIO):
    """Checkpoints that are there whole or not at all, so that a killed run finds its last one."""

    def save_checkpoint(self, checkpoint: Any, path: Any, storage_options: Any = None) -> None:
        """Write beside the file, then take its place."""
        with whole_file(Path(path)) as partial:
            super().save_checkpoint(checkpoint, partial, storage_options)


def processes() -> tuple[int, int]:
    """This process's rank and how many there are, as `torchrun` says; (0, 1) without it."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def log_files(out: Path) -> list[Path]:
    """The CSV logs of a run in their order: one for each time that it was started."""
    return sorted((out / LOG).glob("*/metrics.csv"))


def _part(out: Path) -> str:
    """A folder of its own for each start of a run: Lightning would empty one that is there."""
    return f"{len(list((out / LOG).glob('*'))):03d}"


def make_trainer(config: TrainConfig, out: Path) -> tuple[lightning.Trainer, ModelCheckpoint]:
    """A trainer, and the callback that knows its best epoch.

    Logs (CSV and TensorBoard) lie below `out`/log, in a folder for each time that the run was
    started; checkpoints below `out`/checkpoints: the best epoch's weights, and the last epoch's
    whole state.

    Raises:
        ConfigError: if there are more processes here than GPUs, and any GPU.
    """
    folder = out / "checkpoints"
    best = ModelCheckpoint(
        folder, "best", monitor="val_auroc", mode="max", save_weights_only=True,
        enable_version_counter=False,
    )  # fmt: skip
    last = ModelCheckpoint(folder, "last", save_top_k=1, enable_version_counter=False)
    callbacks: list[lightning.Callback] = [Pace(), best, last]
    if config.schedule == "constant":  # one cycle is only worth its end
        callbacks.insert(1, EarlyStopping("val_auroc", mode="max", patience=config.patience))
    _, world = processes()
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if torch.cuda.is_available() and local > torch.cuda.device_count():
        raise ConfigError(
            f"expected at most one process for each of {torch.cuda.device_count()} GPUs, got "
            f"{local}; start fewer, or hide the GPUs (CUDA_VISIBLE_DEVICES=) to train on the CPU"
        )
    trainer = lightning.Trainer(
        max_epochs=config.epochs,
        precision=config.precision,
        accelerator="auto",
        strategy="ddp" if world > 1 else "auto",
        devices=local,
        num_nodes=max(1, world // local),
        sync_batchnorm=world > 1 and torch.cuda.is_available(),
        use_distributed_sampler=False,  # `BalancedDraws` knows its rank
        plugins=[WholeCheckpoints()],
        logger=[make(out, name=LOG, version=_part(out)) for make in (CSVLogger, TensorBoardLogger)],
        callbacks=callbacks,
        enable_model_summary=False,
        log_every_n_steps=20,
        deterministic=True,
    )
    return trainer, best
