"""From copies to a trained network: by gradient descent, or exactly where the trunk is frozen."""

from __future__ import annotations

import json
import logging
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from utility_gate.errors import ConfigError
from utility_gate.files import whole_file
from utility_gate.sides import LabelledCopy
from utility_gate.training.config import TrainConfig
from utility_gate.training.dataset import Copies, CopyDataset, make_copies, predictor_preprocess
from utility_gate.training.draws import BalancedDraws, balanced_weights
from utility_gate.training.features import see
from utility_gate.training.lightning_module import UtilityModule
from utility_gate.training.linear import fit_head
from utility_gate.training.module import UtilityNet
from utility_gate.training.trainer import LAST, make_trainer, processes

log = logging.getLogger(__name__)

RUN = "run.json"
_SETTLED_ON = 512
"""Copies whose features tell the head their mean and spread, where the trunk is not frozen."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """How gradient descent ended: the validation AUROC of the epoch that it kept, and its pace in
    the last one (`images_per_second`, `waiting_share`, `device`)."""

    auroc: float
    pace: dict[str, Any]


def build_net(config: TrainConfig) -> UtilityNet:
    """The network as training starts with it.

    Raises:
        CheckpointError: if `config.init` cannot be had.
    """
    lightning.seed_everything(config.seed, workers=True, verbose=False)
    net = UtilityNet(config.arch, config.features, config.dropout)
    net.initialize(config.init)
    if config.trunk_rate == 0:
        net.freeze_trunk()
    return net.to(memory_format=torch.channels_last)


def fit_exactly(
    net: UtilityNet, config: TrainConfig, train: list[LabelledCopy], cache: Path | None
) -> None:
    """Fit the head of `net` on a frozen trunk by logistic regression; the trunk stays as it is, and
    `net` ends in eval mode."""
    seen = [_features(net, config, train, 1, cache, altered=False)]
    if config.views > 1:
        seen.append(_features(net, config, train, config.views - 1, cache, altered=True))
    features = torch.cat(seen, 1).flatten(0, 1)
    targets = torch.tensor([copy.target for copy in train])
    targets = targets + config.label_smoothing * (0.5 - targets)
    weights = torch.from_numpy(balanced_weights(targets.tolist())).float()
    fit_head(
        net.head,
        features,
        targets.repeat_interleave(config.views),
        weights.repeat_interleave(config.views) / config.views,
        config.weight_decay,
        _scales(net, config),
    )
    net.eval()


def fit(
    net: UtilityNet,
    config: TrainConfig,
    train: Copies,
    validation: Copies,
    out: Path,
    run: dict[str, Any],
) -> Fitted:
    """Train `net` in place by gradient descent; it ends as in the epoch with the best validation
    AUROC, on the CPU, in eval mode. A run that was killed goes on after its last whole epoch and
    ends as if it had not been; `run` describes it, and another one is not continued.

    Raises:
        ConfigError: if training diverged, or `out` holds the beginning of another run.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    resumed = _resume(out, run)
    lightning.seed_everything(config.seed, workers=True, verbose=False)
    rank, world = processes()
    preprocess = predictor_preprocess(config.side, config.fit)
    train_set = CopyDataset(train, preprocess, augment=config.augment, reencode=config.reencode)
    draws = BalancedDraws(train_set.targets, config.epoch_samples, config.seed, rank, world)
    loaders = {
        "batch_size": max(1, config.batch_size // world),
        "num_workers": config.workers,
        "persistent_workers": config.workers > 0,
        "pin_memory": torch.cuda.is_available(),
    }
    train_loader = DataLoader(train_set, sampler=draws, **loaders)  # type: ignore[arg-type]
    validation_set = CopyDataset(validation, preprocess, augment=False)
    validation_loader = DataLoader(validation_set, **loaders)  # type: ignore[arg-type]
    if config.feature_scale and resumed is None:
        _settle(net, config, train_set)
    trainer, best = make_trainer(config, out)
    auto = config.compile == "auto" and torch.cuda.is_available()
    module = UtilityModule(net, config, compiled=auto or config.compile == "always")
    with warnings.catch_warnings():  # a run that goes on finds its own checkpoints
        warnings.filterwarnings("ignore", "Checkpoint directory .* exists and is not empty")
        trainer.fit(module, train_loader, validation_loader, ckpt_path=resumed, weights_only=False)
    if best.best_model_score is None:
        raise ConfigError("expected at least one finite validation AUROC, got none; lower the rate")
    stored = torch.load(best.best_model_path, map_location="cpu", weights_only=True)
    module.load_state_dict(stored["state_dict"])
    module.net.cpu().eval().float()
    pace = {name: float(trainer.callback_metrics.get(name, torch.nan)) for name in _PACE}
    return Fitted(float(best.best_model_score), pace | {"device": _device_name()})


_PACE = ("images_per_second", "waiting_share")


def head_logits(
    net: UtilityNet, config: TrainConfig, copies: list[LabelledCopy], cache: Path | None
) -> Tensor:
    """Logits (N, 2), float32, on the CPU, of copies as the predictor will see them."""
    features = _features(net, config, copies, 1, cache, altered=False)[:, 0]
    with torch.inference_mode():
        logits: Tensor = net.head.eval()(features)
    return logits.clone()


def _features(
    net: UtilityNet,
    config: TrainConfig,
    copies: list[LabelledCopy],
    views: int,
    cache: Path | None,
    *,
    altered: bool,
) -> Tensor:
    shown = CopyDataset(
        make_copies(copies, config.scale_to, None),
        predictor_preprocess(config.side, config.fit),
        augment=altered and config.augment,
        reencode=config.reencode if altered else 0.0,
    )
    if config.threads:
        torch.set_num_threads(config.threads)
    return see(net.trunk, shown, copies, views, config.seed, config.workers, cache)


def _scales(net: UtilityNet, config: TrainConfig) -> Tensor:
    sizes = net.trunk.sizes()
    return torch.cat(
        [torch.full((size,), config.feature_scale.get(name, 1.0)) for name, size in sizes.items()]  # type: ignore[call-overload]
    )


@torch.inference_mode()
def _settle(net: UtilityNet, config: TrainConfig, dataset: CopyDataset) -> None:
    """Standardise the features as the trunk makes them at the start."""
    chosen = list(BalancedDraws(dataset.targets, _SETTLED_ON, config.seed))
    loader = DataLoader(dataset, config.batch_size, sampler=chosen, num_workers=config.workers)
    net.trunk.eval()
    seen = torch.cat([net.trunk(images) for images, _ in loader])
    net.head[0].settle(seen, _scales(net, config))  # type: ignore[operator]
    net.train()


def _resume(out: Path, run: dict[str, Any]) -> str | None:
    """The last checkpoint of this very run, if it began before.

    Raises:
        ConfigError: if what began in `out` was another run.
    """
    described, last = out / RUN, out / "checkpoints" / LAST
    if last.exists() and described.exists():
        if json.loads(described.read_text()) != run:
            raise ConfigError(
                f"{out}: holds the beginning of a run with other labels, code or configuration; "
                "choose another folder, or remove it"
            )
        log.info("going on after the last whole epoch of the run in %s", out)
        return str(last)
    with whole_file(described, shared=True) as partial:
        partial.write_text(json.dumps(run, indent=2))
    return None


def _device_name() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
