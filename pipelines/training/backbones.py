"""torchvision's classifiers without their ends, by name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models import get_model, get_model_weights
from torchvision.models.feature_extraction import create_feature_extractor

from utility_gate.errors import CheckpointError
from utility_gate.training.weights import torchvision_state

_MAP = "map"


@dataclass(frozen=True, slots=True)
class _Backbone:
    node: str
    """The layer whose output is the last feature map."""
    late: str
    """The module with which the later half begins."""


BACKBONES = {
    "resnet18": _Backbone("layer4", "layer3"),
    "resnet34": _Backbone("layer4", "layer3"),
    "resnet50": _Backbone("layer4", "layer3"),
    "vgg16": _Backbone("features", "features.17"),
    "vgg19": _Backbone("features", "features.19"),
    "inception_v3": _Backbone("Mixed_7c", "Mixed_6a"),
    "mobilenet_v2": _Backbone("features", "features.4"),
    "mobilenet_v3_large": _Backbone("features", "features.7"),
    "alexnet": _Backbone("features", "features.6"),
}
"""The networks that the seeds compare, and smaller ones."""

_INCEPTION = {"aux_logits": False, "init_weights": False, "transform_input": True}
"""No second end; and torchvision's weights of it expect other means and variances than those of the
others, which it can make of theirs."""


class Trunk(nn.Module):
    """A backbone up to its last feature map."""

    def __init__(self, arch: str) -> None:
        super().__init__()
        self.arch = arch
        self._early_frozen = False
        backbone = BACKBONES[arch]
        options = _INCEPTION if arch == "inception_v3" else {}
        whole = get_model(arch, weights=None, **options)
        self.net = create_feature_extractor(whole, {backbone.node: _MAP})
        with torch.no_grad():
            self.channels = int(self.eval()(torch.zeros(1, 3, 96, 96)).shape[1])
        self.train()

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) normalised float to a feature map (N, `channels`, h, w)."""
        result: Tensor = self.net(images)[_MAP]
        return result

    def blocks(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """The parameters of its earlier and of its later half (seed 000, section 5, learns the
        former slower: they are the most general)."""
        early, late = self._layers()
        return ([p for layer in early for p in layer.parameters()],
                [p for layer in late for p in layer.parameters()])  # fmt: skip

    def freeze_early(self) -> None:
        """Train the later half alone from now on; the statistics of the earlier stay too."""
        self._early_frozen = True
        for layer in self._layers()[0]:
            layer.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> Trunk:
        """Training mode, but for what is frozen."""
        super().train(mode)
        if self._early_frozen:
            for layer in self._layers()[0]:
                layer.eval()
        return self

    def _layers(self) -> tuple[list[nn.Module], list[nn.Module]]:
        leaves = [(name, m) for name, m in self.net.named_modules() if not list(m.children())]
        start = f"{BACKBONES[self.arch].late}."
        first = next(i for i, (name, _) in enumerate(leaves) if f"{name}.".startswith(start))
        modules = [module for _, module in leaves]
        return modules[:first], modules[first:]

    def initialize(self, source: str) -> None:
        """Set the weights: "scratch" keeps the random start, "IMAGENET1K_V1" is torchvision's
        (downloaded or cached), anything else a safetensors file of a trunk.

        Raises:
            CheckpointError: if they cannot be had or are of another network.
        """
        if source == "scratch":
            return
        if source != "IMAGENET1K_V1":
            try:
                self.load_state_dict(load_file(Path(source)))
            except Exception as error:
                raise CheckpointError(
                    f"init {source}: expected scratch, IMAGENET1K_V1 or a trunk of {self.arch}: "
                    f"{error}"
                ) from error
            return
        weights = get_model_weights(self.arch)[source]
        state = torchvision_state(weights, "set init to scratch or a trunk's file")
        wanted = self.net.state_dict().keys()
        self.net.load_state_dict({name: state[name] for name in wanted})
