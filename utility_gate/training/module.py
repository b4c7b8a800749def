"""The predictor's network: a torchvision trunk, by default ResNet-18, with two outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
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
from utility_gate.training.weights import torchvision_state

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)
"""Per-channel statistics of 0-255 RGB values that torchvision's weights were trained with."""

USEFUL = 1
NON_USEFUL = 0
"""The two classes; softmax output `USEFUL` is the utility."""


FEATURES = ("confidence", "pooled", "stages")
"""What a head may see of a trunk; see `Trunk`."""

_LARGEST = 10


@dataclass(frozen=True, slots=True)
class Architecture:
    """A network of torchvision's: how it is made, its ImageNet weights, the modules that it runs
    one after the other, and after which of these a stage ends (the last one's map is pooled)."""

    make: Callable[[], nn.Module]
    weights: WeightsEnum
    steps: Callable[[Any], Sequence[nn.Module]]
    stages: tuple[int, ...]
    classifier: str

    def imagenet_state(self) -> dict[str, Tensor]:
        """torchvision's weights, downloaded or cached, by its own names.

        Raises:
            CheckpointError: if they cannot be had.
        """
        return torchvision_state(self.weights, "give --init a trunk or scratch")


def _resnet_steps(net: ResNet) -> Sequence[nn.Module]:
    stem = (net.conv1, net.bn1, net.relu, net.maxpool)
    return (*stem, net.layer1, net.layer2, net.layer3, net.layer4)


ARCHITECTURES = {
    "resnet18": Architecture(
        partial(resnet18, weights=None),
        ResNet18_Weights.IMAGENET1K_V1,
        _resnet_steps,
        (2, 4, 5, 6, 7),
        "fc",
    ),
    "mobilenet_v2": Architecture(
        partial(mobilenet_v2, weights=None),
        MobileNet_V2_Weights.IMAGENET1K_V1,
        lambda net: tuple(net.features),
        (0, 1, 3, 6, 10, 13, 16, 17, 18),
        "classifier",
    ),
}


class Trunk(nn.Module):
    """torchvision's ResNet-18 (He et al., 2016) or MobileNet-v2 (Sandler et al., 2018), as seen by
    a head: any of these features, one after the other.

    "pooled": the mean of the last feature map. "confidence" (15): how surely the network with its
    own classifier recognises the image, as the ten largest class log-probabilities, the logarithm
    of the sum and the standard deviation of all logits, the largest probability p, log(1 - p), and
    the negative entropy of the ten. "stages": mean and standard deviation of every channel of each
    stage but the last, where compression shows.
    """

    def __init__(self, arch: str = "resnet18", features: Sequence[str] = ("pooled",)) -> None:
        super().__init__()
        self.architecture, self.features = ARCHITECTURES[arch], tuple(features)
        self.net = self.architecture.make()
        if "confidence" not in features:  # no weights that nothing uses
            setattr(self.net, self.architecture.classifier, nn.Identity())

    def take(self, state: Mapping[str, Tensor]) -> None:
        """Set all weights. The classifier may know any number of classes, and is left out where
        `features` do not ask it.

        Raises:
            RuntimeError: if they are another network's.
        """
        classifier = f"net.{self.architecture.classifier}."
        if "confidence" not in self.features:
            state = {name: v for name, v in state.items() if not name.startswith(classifier)}
        for name, layer in list(self.net.named_modules()):
            weight = state.get(f"net.{name}.weight")
            if isinstance(layer, nn.Linear) and weight is not None and weight.dim() == 2:
                known = nn.Linear(weight.shape[1], weight.shape[0])
                self.net.set_submodule(name, known)
        self.load_state_dict(dict(state))

    def look(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(N, 3, H, W) normalised float to the last feature map (N, C, H/32, W/32) and the
        earlier stages' maps."""
        maps, x = [], images
        for number, step in enumerate(self.architecture.steps(self.net)):
            x = step(x)
            if number in self.architecture.stages[:-1] and "stages" in self.features:
                maps.append(x)
        return x, maps

    def feature_map(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) normalised float to the last feature map (N, C, H/32, W/32)."""
        return self.look(images)[0]

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) normalised float to features (N, F), float32, groups in their order."""
        last, maps = self.look(images)
        pooled = last.mean((2, 3))
        groups = {"pooled": lambda: pooled, "confidence": lambda: self._confidence(pooled)}
        groups["stages"] = lambda: torch.cat([moments(stage) for stage in maps], 1)
        return torch.cat([groups[name]().float() for name in self.features], 1)

    def sizes(self, side: int = 64) -> dict[str, int]:
        """Features by group, in their order."""
        training = self.training
        with torch.no_grad():
            last, maps = self.eval().look(torch.zeros(1, 3, side, side))
        self.train(training)
        known = {
            "pooled": last.shape[1],
            "confidence": _LARGEST + 5,
            "stages": sum(2 * stage.shape[1] for stage in maps),
        }
        return {name: known[name] for name in self.features}

    def _confidence(self, pooled: Tensor) -> Tensor:
        logits = getattr(self.net, self.architecture.classifier)(pooled).float()
        energy = logits.logsumexp(1, keepdim=True)
        largest = logits.topk(_LARGEST).values - energy
        p = largest[:, :1].exp()
        entropy = (largest.exp() * largest).sum(1, keepdim=True)
        spread = logits.std(1, keepdim=True)
        return torch.cat([largest, energy, spread, p, (1 - p + 1e-4).log(), entropy], dim=1)


def moments(stage: Tensor) -> Tensor:
    """Mean and standard deviation (N, 2C) of every channel of a feature map (N, C, H, W)."""
    flat = stage.float().flatten(2)
    mean = flat.mean(2)
    spread = (flat - mean[..., None]).square().mean(2).add(1e-8).sqrt()
    return torch.cat([mean, spread], 1)


class Standardize(nn.Module):
    """Features (N, F) less their mean, times a scale; as they are until `settle` is called."""

    mean: Tensor
    scale: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))

    def settle(self, features: Tensor, scale: Tensor) -> None:
        """Take mean and spread of these features (M, F); `scale` (F,) is what a spread becomes.

        A feature that hardly varies (a dead channel) counts for nothing, or rounding would count.
        """
        mean, spread = features.mean(0), features.std(0)
        alive = spread > 1e-5 + 1e-4 * mean.abs()
        self.mean.copy_(mean)
        self.scale.copy_(torch.where(alive, scale / spread, 0.0))

    def forward(self, features: Tensor) -> Tensor:
        """(N, F) to the same."""
        return (features - self.mean) * self.scale


class UtilityNet(nn.Module):
    """A trunk with two logits, (non-useful, useful); the paper's section IV has a ResNet-18."""

    def __init__(
        self,
        arch: str = "resnet18",
        features: Sequence[str] = ("pooled",),
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.trunk = Trunk(arch, features)
        width = sum(self.trunk.sizes().values())
        self.head = nn.Sequential(Standardize(width), nn.Dropout(dropout), nn.Linear(width, 2))
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

    @torch.no_grad()
    def shift_margin(self, shift: float) -> None:
        """Add `shift` to the useful logit less the non-useful one, of whatever image."""
        linear = cast(nn.Linear, self.head[2])
        linear.bias[USEFUL] += shift / 2
        linear.bias[NON_USEFUL] -= shift / 2

    def initialize(self, source: str) -> None:
        """Set the trunk: "scratch" keeps the random start; "IMAGENET1K_V1" is torchvision's
        (downloaded or cached); anything else is a trunk saved by `utility-gate pretrain`.

        Raises:
            CheckpointError: if the weights cannot be had, or the file does not hold a trunk.
        """
        if source == "scratch":
            return
        if source == "IMAGENET1K_V1":
            wanted = self.trunk.net.state_dict().keys()
            state = self.trunk.architecture.imagenet_state()
            self.trunk.net.load_state_dict({k: v for k, v in state.items() if k in wanted})
            return
        path = Path(source)
        if not path.exists():
            raise CheckpointError(
                f"expected init = scratch, IMAGENET1K_V1 or a safetensors file, got {source}"
            )
        try:
            self.trunk.take(load_file(path))
        except Exception as error:
            raise CheckpointError(f"{path}: expected a trunk of this network: {error}") from error
