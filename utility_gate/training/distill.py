"""Teach a ResNet-18 to see before it learns utility.

A ready-made classifier (the teacher) looks at unlabelled photographs, each cropped and
re-compressed at random; the ResNet-18 learns to reproduce the teacher's last feature map and
its class probabilities from the same pixels. What is learned is what the labels of utility are
made of: which content a network recognises, and how compression takes that away. Only needed
where torchvision's own ImageNet weights cannot be had.
"""

from __future__ import annotations

import json
import logging
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import numpy.typing as npt
import onnx
import torch
from lightning.pytorch.loggers import CSVLogger
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from utility_gate.errors import ConfigError, NetworkError
from utility_gate.files import digest_bytes
from utility_gate.images import Pixels, decode, encode_jpeg
from utility_gate.networks import OnnxClassifierSpec, open_session
from utility_gate.preprocess import Preprocess
from utility_gate.training.module import IMAGENET_MEAN, IMAGENET_STD, Trunk
from utility_gate.training.origin import PHOTOGRAPHS, short_digest
from utility_gate.training.photos import PhotoCache, build_cache

log = logging.getLogger(__name__)

TEMPERATURE = 2.0
"""Softens both class distributions before they are compared (Hinton et al., 2015)."""


@dataclass(frozen=True, slots=True)
class DistillConfig:
    """What to learn from and for how long; `side` is the student's input side in pixels."""

    photos: tuple[Path, ...]
    cache: Path
    out: Path
    samples: int = 150_000
    batch_size: int = 64
    side: int = 160
    learning_rate: float = 2e-3
    weight_decay: float = 0.02
    workers: int = 1
    threads: int = 2
    seed: int = 0


class Teacher:
    """An ONNX classifier that also hands out its last feature map."""

    def __init__(self, spec: OnnxClassifierSpec, threads: int) -> None:
        model = onnx.load(str(spec.file))
        pools = [n for n in model.graph.node if n.op_type in ("GlobalAveragePool", "AveragePool")]
        if not pools:
            raise NetworkError(f"{spec.file}: expected a pooling layer to take features before")
        feature = onnx.ValueInfoProto()
        feature.name = pools[-1].input[0]
        model.graph.output.append(feature)
        self.spec = spec
        self.session = open_session(model.SerializeToString(), threads)
        self.input = self.session.get_inputs()[0].name
        blank = np.zeros((1, spec.input, spec.input, 3), np.uint8)
        features, logits = self(blank)
        self.channels, self.classes = features.shape[1], logits.shape[1]

    def __call__(self, crops: Pixels) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """(N, S, S, 3) uint8 RGB to feature maps (N, C, h, w) and class logits (N, K)."""
        batch = self.spec.preprocess.normalize(crops)
        scores, features = self.session.run(None, {self.input: batch})
        scores = scores.reshape(len(crops), -1).astype(np.float32)
        if self.spec.background:
            scores = scores[:, 1:]
        if self.spec.output == "probabilities":
            scores = np.log(np.clip(scores, 1e-8, 1.0))
        return features.astype(np.float32), scores


class DegradedCrops(Dataset[Tensor]):
    """Random crops of cached photographs, most of them re-compressed: (S, S, 3) uint8."""

    def __init__(self, cache: PhotoCache, side: int, samples: int, seed: int) -> None:
        self.cache, self.side, self.samples, self.seed = cache, side, samples, seed
        # Large roots count more than small ones, but only by the square root of their size.
        sizes = np.bincount(cache.roots)
        weights = np.array([1 / math.sqrt(sizes[root]) for root in cache.roots])
        self.cumulative = np.cumsum(weights / weights.sum())

    def __len__(self) -> int:
        return self.samples

    def __getitem__(self, index: int) -> Tensor:
        random = np.random.default_rng((self.seed, index))
        drawn = int(np.searchsorted(self.cumulative, random.random()))
        photo = self.cache.pixels[min(drawn, len(self.cumulative) - 1)]
        full = photo.shape[0]
        area = random.uniform(0.3, 1.0)
        ratio = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
        height = min(full, round(full * math.sqrt(area / ratio)))
        width = min(full, round(full * math.sqrt(area * ratio)))
        top = int(random.integers(full - height + 1))
        left = int(random.integers(full - width + 1))
        window = np.ascontiguousarray(photo[top : top + height, left : left + width])
        if random.random() < 0.5:
            window = np.ascontiguousarray(window[:, ::-1])
        crop = Preprocess(resize=self.side, crop=self.side).crop_pixels(window)
        if random.random() < 0.75:
            quality = round(math.exp(random.uniform(math.log(3), math.log(95))))
            crop = decode(encode_jpeg(crop, quality)).pixels
        return torch.from_numpy(np.array(crop))


class Distillation(lightning.LightningModule):
    """Student and loss: feature maps by mean squared error, classes by soft cross-entropy."""

    mean: Tensor
    std: Tensor

    def __init__(self, teacher: Teacher, config: DistillConfig) -> None:
        super().__init__()
        self.config = config
        self.teacher = teacher
        self.student = Trunk()
        self.to_map = nn.Conv2d(512, teacher.channels, 1)
        self.to_classes = nn.Linear(512, teacher.classes)
        # Every teacher channel counts the same, whatever its scale.
        self.standardize = nn.BatchNorm2d(teacher.channels, affine=False)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1))

    def training_step(self, crops: Tensor, _: int) -> Tensor:
        """One batch's loss; `crops` is (N, S, S, 3) uint8 RGB."""
        teacher_map, teacher_logits = self._ask_teacher(crops)
        images = crops.permute(0, 3, 1, 2).float()
        images = F.interpolate(
            images, size=self.config.side, mode="bilinear", antialias=True, align_corners=False
        )
        images = ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        student_map = self.student.feature_map(images)
        height, width = student_map.shape[-2:]
        target = F.adaptive_avg_pool2d(self.standardize(teacher_map), (height, width))
        map_loss = F.mse_loss(self.to_map(student_map).float(), target)
        logits = self.to_classes(student_map.mean((2, 3))).float()
        class_loss = F.kl_div(
            F.log_softmax(logits / TEMPERATURE, 1),
            F.softmax(teacher_logits / TEMPERATURE, 1),
            reduction="batchmean",
        )
        agreement = (logits.argmax(1) == teacher_logits.argmax(1)).float().mean()
        self.log("map_loss", map_loss, prog_bar=True)
        self.log("class_loss", class_loss, prog_bar=True)
        self.log("agreement", agreement, prog_bar=True)
        return map_loss + class_loss

    def _ask_teacher(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        features, logits = self.teacher(crops.cpu().numpy())
        return (
            torch.from_numpy(features).to(crops.device),
            torch.from_numpy(logits).to(crops.device),
        )

    def configure_optimizers(self) -> Any:
        """AdamW over one cycle."""
        optimizer = torch.optim.AdamW(
            self.parameters(), self.config.learning_rate, weight_decay=self.config.weight_decay
        )
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            self.config.learning_rate,
            total_steps=int(self.trainer.estimated_stepping_batches),
            pct_start=0.1,
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }


def distill(config: DistillConfig, teacher: OnnxClassifierSpec) -> Path:
    """Cache the photographs, train the trunk, save it as `config.out` (safetensors) with what it
    was made from in the file's metadata.

    Photographs held out for testing (see `utility_gate.split`) are never looked at; those that
    training later keeps for validation and calibration are, without their labels: thresholds that
    such photographs choose have no guarantee.

    Raises:
        ConfigError: if `config.out` exists, or the samples do not fill a batch.
        TableError: if there are no photographs.
    """
    if config.out.exists():
        raise ConfigError(f"{config.out}: exists already; choose another file")
    if config.samples < config.batch_size:
        raise ConfigError(f"expected at least {config.batch_size} samples, got {config.samples}")
    config.out.parent.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(config.threads)
    lightning.seed_everything(config.seed, verbose=False)
    cache = build_cache(list(config.photos), config.cache)
    module = Distillation(Teacher(teacher, config.threads), config)
    module.student.to(memory_format=torch.channels_last)
    crops = DegradedCrops(cache, teacher.input, config.samples, config.seed)
    loader = DataLoader(
        crops,
        config.batch_size,
        num_workers=config.workers,
        drop_last=True,
    )
    trainer = lightning.Trainer(
        max_epochs=1,
        precision="bf16-mixed",
        devices=1,
        logger=CSVLogger(config.out.parent, name="distill"),
        enable_checkpointing=False,
        enable_model_summary=False,
        log_every_n_steps=20,
    )
    trainer.fit(module, loader)
    state = {k: v.cpu().contiguous() for k, v in module.student.state_dict().items()}
    save_file(state, config.out, metadata=_provenance(config, teacher, cache))
    log.info("trunk saved as %s", config.out)
    return config.out


def _provenance(
    config: DistillConfig, teacher: OnnxClassifierSpec, cache: PhotoCache
) -> dict[str, str]:
    """What a trunk was made from, as safetensors keeps it: text to text."""
    photos = Counter(config.photos[root].name for root in cache.roots)
    return {
        "teacher": teacher.name,
        "teacher_sha256": digest_bytes(teacher.file.read_bytes()),
        "photos": json.dumps(photos),
        PHOTOGRAPHS: json.dumps([short_digest(digest) for digest in cache.digests]),
        "samples": str(config.samples),
        "batch_size": str(config.batch_size),
        "side": str(config.side),
        "learning_rate": str(config.learning_rate),
        "weight_decay": str(config.weight_decay),
        "seed": str(config.seed),
    }
