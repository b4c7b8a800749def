"""One run of Lightning's trainer, from its seed to the best epoch's weights."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger

from pipelines.training.run_recipe import RunRecipe
from utility_gate.errors import ConfigError

_PACKAGES = ("utility-gate", "torch", "torchvision", "lightning", "onnx", "onnxruntime", "pillow")


def package_versions() -> dict[str, str]:
    """The packages that decide what a run makes, with their versions, for cards."""
    return {package: version(package) for package in _PACKAGES}


def seed_run(recipe: RunRecipe) -> None:
    """Let everything random begin at the recipe's seed."""
    lightning.seed_everything(recipe.seed, workers=True, verbose=False)


def begin_fit(recipe: RunRecipe) -> None:
    """Give torch its threads and the fit its seed."""
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    seed_run(recipe)


def loader_options(recipe: RunRecipe, batch_size: int) -> dict[str, Any]:
    """What the loaders of both sides have in common."""
    return {
        "batch_size": batch_size,
        "num_workers": recipe.workers,
        "persistent_workers": recipe.workers > 0,
    }


def make_trainer(
    recipe: RunRecipe, epochs: int, out: Path, callbacks: Sequence[Callback], **options: Any
) -> lightning.Trainer:
    """A trainer that writes `metrics.csv` into `out`, nothing to the terminal, and checkpoints only
    if a callback does; `epochs` -1 for any number, `options` as Lightning has them."""
    return lightning.Trainer(
        max_epochs=epochs,
        precision=recipe.precision,
        accelerator="auto",
        devices=1,
        logger=CSVLogger(out, name="", version=""),
        callbacks=list(callbacks),
        default_root_dir=out,
        enable_model_summary=False,
        enable_progress_bar=False,
        enable_checkpointing=any(isinstance(c, ModelCheckpoint) for c in callbacks),
        num_sanity_val_steps=0,
        **options,
    )


def fit_best(
    module: lightning.LightningModule, recipe: RunRecipe, epochs: int, loaders: tuple[Any, Any],
    out: Path, stops: Sequence[Callback] = (), **options: Any,
) -> None:  # fmt: skip
    """Train `module`, which logs `val_loss`, on the first of `loaders`, and leave it as in the
    epoch with the lowest loss on the second. `out` gets `metrics.csv` and that epoch's weights;
    `options` as `make_trainer`.

    Raises:
        ConfigError: if training diverged.
    """
    best = ModelCheckpoint(
        out, "best", monitor="val_loss", save_weights_only=True, enable_version_counter=False
    )
    make_trainer(recipe, epochs, out, [best, *stops], **options).fit(module, *loaders)
    if best.best_model_score is None or not torch.isfinite(best.best_model_score):
        raise ConfigError("expected at least one finite validation loss, got none; lower the rate")
    stored = torch.load(best.best_model_path, map_location="cpu", weights_only=True)
    module.load_state_dict(stored["state_dict"])
