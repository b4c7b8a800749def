"""How the detector is trained."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchmetrics import MeanMetric
from torchvision import tv_tensors
from torchvision.transforms import v2

from pipelines.boxed import BoxedImage
from pipelines.training.dataset import normalize
from pipelines.training.detector import BoxNet
from pipelines.training.detector_config import DetectorRecipe
from pipelines.training.runs import begin_fit, fit_best, loader_options
from utility_gate.errors import ConfigError
from utility_gate.files import read_source
from utility_gate.images import decode
from utility_gate.training.module import IMAGENET_MEAN

Item = tuple[Tensor, Tensor, Tensor]
_SMALLEST = 3.0
"""Boxes that a crop leaves with a shorter side, in pixels, are not looked for."""


class CropDataset(Dataset[Item]):
    """Crops (3, C, C) float32 with boxes (M, 4) xyxy and labels (M,), from any of an original's
    copies; the middle of the first copy where nothing is random."""

    def __init__(
        self, originals: Sequence[Sequence[BoxedImage]], recipe: DetectorRecipe, *, augment: bool
    ) -> None:
        self._originals, self._recipe, self._augment = originals, recipe, augment
        self._repeats = recipe.repeats if augment else 1
        fill = {tv_tensors.Image: tuple(round(value) for value in IMAGENET_MEAN)}
        size = (recipe.crop, recipe.crop)
        random = [
            v2.RandomHorizontalFlip(),
            v2.ScaleJitter((recipe.side, recipe.side), (0.6, 1.4), antialias=True),
            v2.RandomCrop(size, pad_if_needed=True, fill=fill),
            v2.ColorJitter(0.3, 0.3, 0.3),
        ]
        chosen = random if augment else [v2.CenterCrop(size)]
        self._transform = v2.Compose(
            [*chosen, v2.ClampBoundingBoxes(), v2.SanitizeBoundingBoxes(min_size=_SMALLEST)]
        )

    def __len__(self) -> int:
        return len(self._originals) * self._repeats

    def __getitem__(self, index: int) -> Item:
        copies = self._originals[index // self._repeats]
        chosen = int(torch.randint(len(copies), ())) if self._augment else 0
        image = copies[chosen]
        pixels, boxes = load_scaled(image, self._recipe.side)
        sample = {
            "image": tv_tensors.Image(torch.from_numpy(pixels).permute(2, 0, 1)),
            "boxes": tv_tensors.BoundingBoxes(
                boxes.reshape(-1, 4),
                format="XYXY",
                canvas_size=pixels.shape[:2],
            ),
            "labels": torch.tensor(
                [self._recipe.classes.index(label) for label in image.labels], dtype=torch.int64
            ),
        }
        out = self._transform(sample)
        return normalize(out["image"]), torch.as_tensor(out["boxes"]).float(), out["labels"]


def load_scaled(image: BoxedImage, side: int) -> tuple[Any, Tensor]:
    """Pixels HWC uint8 with the longer side `side`, and boxes (M, 4) xyxy in them."""
    decoded = decode(read_source(image.path))
    scale = side / max(decoded.width, decoded.height)
    size = (max(1, round(decoded.width * scale)), max(1, round(decoded.height * scale)))
    resized = Image.fromarray(decoded.pixels).resize(size, Image.Resampling.BILINEAR)
    boxes = torch.tensor(image.boxes, dtype=torch.float32).reshape(-1, 4) * scale
    return np.array(resized), boxes


def collate(items: Sequence[Item]) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Images as one batch, boxes and labels as lists."""
    images, boxes, labels = zip(*items, strict=True)
    return torch.stack(images), list(boxes), list(labels)


class DetectorModule(lightning.LightningModule):
    """The fit of a `BoxNet`."""

    def __init__(self, net: BoxNet, recipe: DetectorRecipe) -> None:
        super().__init__()
        self.net, self.recipe = net, recipe
        self.val_loss = MeanMetric(nan_strategy=math.inf)  # its own way is to leave NaN out

    def training_step(self, batch: Any, _: int) -> Tensor:
        """One batch's loss."""
        loss = self.net.losses(*batch)
        self.log("train_loss", loss, on_epoch=True, on_step=False, batch_size=len(batch[0]))
        return loss

    def validation_step(self, batch: Any, _: int) -> None:
        """Collect the loss."""
        self.val_loss.update(self.net.losses(*batch), len(batch[0]))

    def on_validation_epoch_end(self) -> None:
        """Log the loss by which the best epoch is chosen."""
        self.log("val_loss", self.val_loss.compute())
        self.val_loss.reset()

    def configure_optimizers(self) -> Any:
        """AdamW in one cycle; the trunk learns slower."""
        recipe = self.recipe
        body = list(self.net.fcos.backbone.body.parameters())
        inside = {id(parameter) for parameter in body}
        body = [parameter for parameter in body if parameter.requires_grad]
        rest = [p for p in self.net.parameters() if id(p) not in inside]
        rates = [recipe.learning_rate * recipe.trunk_rate, recipe.learning_rate]
        groups = [{"params": p, "lr": rate} for p, rate in zip((body, rest), rates, strict=True)]
        optimizer = torch.optim.AdamW(groups, weight_decay=recipe.weight_decay)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, rates, total_steps=steps, pct_start=0.15, cycle_momentum=False
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def fit_detector(
    net: BoxNet,
    recipe: DetectorRecipe,
    train: Sequence[Sequence[BoxedImage]],
    validation: Sequence[Sequence[BoxedImage]],
    out: Path,
) -> None:
    """Train `net` in place on originals, each a list of its copies; it ends as in the epoch with
    the lowest validation loss, on the CPU, in eval mode.

    Raises:
        ConfigError: if a side is empty or training diverged.
    """
    if not train or not validation:
        raise ConfigError(
            f"expected originals to train and to validate on, got {len(train)}, {len(validation)}"
        )
    begin_fit(recipe)
    common = loader_options(recipe, recipe.batch_size) | {"collate_fn": collate}
    crops = CropDataset(train, recipe, augment=True)
    whole = len(crops) >= recipe.batch_size
    loaders = (
        DataLoader(crops, shuffle=True, drop_last=whole, **common),
        DataLoader(CropDataset(validation, recipe, augment=False), **common),
    )
    net.freeze(recipe.frozen)
    net.to(memory_format=torch.channels_last)
    module = DetectorModule(net, recipe)
    fit_best(module, recipe, recipe.epochs, loaders, out, gradient_clip_val=10.0)
    net.cpu().eval().float()
