"""The predictor's network: a torchvision trunk, by default ResNet-18, with two outputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models import (
    MobileNet_V2_Weights,
    ResNet18_Weights,
    WeightsEnum,
    mobilenet_v2,
    resnet18,
)
from torchvision.models.resnet import ResNet

from utility_gate.errors import CheckpointError
from utility_gate.files import digest_bytes

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)
"""Per-channel statistics of 0-255 RGB values that torchvision's weights were trained with."""

USEFUL = 1
NON_USEFUL = 0
"""The two classes; softmax output `USEFUL` is the utility."""


class ResNet18Trunk(nn.Module):
    """ResNet-18 (He et al., 2016) without its classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.net: ResNet = resnet18(weights=None)
        self.net.fc = cast(nn.Linear, nn.Identity())

    def feature_map(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) normalised float to (N, 512, H/32, W/32)."""
        net = self.net
        x = net.maxpool(net.relu(net.bn1(net.conv1(images))))
        return cast(Tensor, net.layer4(net.layer3(net.layer2(net.layer1(x)))))

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) normalised float to pooled features (N, 512)."""
        return self.feature_map(images).mean((2, 3))


class MobileNetV2Trunk(nn.Module):
    """How surely MobileNet-v2 (Sandler et al., 2018), classifier included, recognises an image.

    The features are the ten largest class log-probabilities, the logarithm of the sum and the
    standard deviation of all logits, the largest probability p, log(1 - p), and the negative
    entropy of the ten.
    """

    def __init__(self) -> None:
        super().__init__()
        self.net = mobilenet_v2(weights=None)

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) normalised float to features (N, 15)."""
        logits = self.net(images)
        energy = logits.logsumexp(1, keepdim=True)
        largest = logits.topk(10).values - energy
        p = largest[:, :1].exp()
        entropy = (largest.exp() * largest).sum(1, keepdim=True)
        spread = logits.std(1, keepdim=True)
        return torch.cat([largest, energy, spread, p, (1 - p + 1e-4).log(), entropy], dim=1)


@dataclass(frozen=True, slots=True)
class Architecture:
    """A trunk that holds torchvision's network as its `net`, its number of features, and
    torchvision's ImageNet weights for it."""

    make_trunk: Callable[[], nn.Module]
    features: int
    weights: WeightsEnum
    standardize: bool
    """Whether the features differ in scale, so that the head should see all of them alike."""

    def imagenet_state(self) -> dict[str, Tensor]:
        """torchvision's weights, downloaded or cached, named as in the trunk.

        Raises:
            CheckpointError: if they cannot be had.
        """
        try:
            state = self.weights.get_state_dict(progress=True, check_hash=True)
        except (OSError, RuntimeError) as error:
            raise CheckpointError(
                f"torchvision's weights could not be downloaded ({error}); put {self.weights.url} "
                f"into {torch.hub.get_dir()}/checkpoints, or give --init a trunk or scratch"
            ) from error
        wanted = self.make_trunk().state_dict().keys()
        return {f"net.{k}": v for k, v in state.items() if f"net.{k}" in wanted}


ARCHITECTURES = {
    "resnet18": Architecture(ResNet18Trunk, 512, ResNet18_Weights.IMAGENET1K_V1, False),
    "mobilenet_v2": Architecture(MobileNetV2Trunk, 15, MobileNet_V2_Weights.IMAGENET1K_V1, True),
}


class UtilityNet(nn.Module):
    """A trunk with two logits, (non-useful, useful); the paper's section IV has a ResNet-18."""

    def __init__(self, arch: str = "resnet18", dropout: float = 0.0) -> None:
        super().__init__()
        self.architecture = ARCHITECTURES[arch]
        self.trunk = self.architecture.make_trunk()
        features = self.architecture.features
        standardize = nn.BatchNorm1d(features, affine=False)
        self.head = nn.Sequential(
            standardize if self.architecture.standardize else nn.Identity(),
            nn.Dropout(dropout),
            nn.Linear(features, 2),
        )
        self.frozen = False

    def freeze_trunk(self) -> None:
        """Train the head alone from now on; the trunk's statistics stay as they are too."""
        self.frozen = True
        self.trunk.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> UtilityNet:
        """Training mode, but for a frozen trunk."""
        super().train(mode)
        if self.frozen:
            self.trunk.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, S, S) normalised float to logits (N, 2)."""
        return cast(Tensor, self.head(self.trunk(images)))

    def initialize(self, source: str) -> None:
        """Set the trunk: "scratch" keeps the random start; "IMAGENET1K_V1" is torchvision's
        (downloaded or cached); anything else is a trunk saved by `utility-gate pretrain`.

        Raises:
            CheckpointError: if the weights cannot be had, or the file does not hold a trunk.
        """
        if source == "scratch":
            return
        if source == "IMAGENET1K_V1":
            self.trunk.load_state_dict(self.architecture.imagenet_state())
            return
        path = Path(source)
        if not path.exists():
            raise CheckpointError(
                f"expected init = scratch, IMAGENET1K_V1 or a safetensors file, got {source}"
            )
        try:
            self.trunk.load_state_dict(load_file(path))
        except Exception as error:
            raise CheckpointError(f"{path}: expected a trunk of this network: {error}") from error


def describe_init(source: str) -> dict[str, str]:
    """Where a trunk came from, for the card: a file's SHA-256 and what its maker recorded."""
    path = Path(source)
    if source in ("scratch", "IMAGENET1K_V1"):
        return {"source": source}
    with safe_open(path, framework="pt") as file:
        recorded = file.metadata() or {}
    return {"source": path.name, "sha256": digest_bytes(path.read_bytes()), **recorded}
