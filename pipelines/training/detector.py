"""A one-stage detector on a light trunk: torchvision's FCOS (Tian et al., 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torchvision.models import mobilenet_v2
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.fcos import FCOS, FCOSHead
from torchvision.models.detection.image_list import ImageList
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from pipelines.training.backbones import Trunk

STRIDES = (8, 16, 32, 64, 128)

Maps = tuple[Tensor, Tensor, Tensor]


class BoxNet(nn.Module):
    """FCOS with a feature pyramid over MobileNet-v2 and heads of two layers.

    `classes` counts what is looked for; there is no class for background.
    """

    def __init__(self, classes: int, channels: int = 96) -> None:
        super().__init__()
        self._frozen: list[nn.Module] = []
        pyramid = BackboneWithFPN(
            mobilenet_v2(weights=None).features,
            return_layers={"6": "8", "13": "16", "18": "32"},
            in_channels_list=[32, 96, 1280],
            out_channels=channels,
            extra_blocks=LastLevelP6P7(channels, channels),
        )
        anchors = AnchorGenerator(tuple((s,) for s in STRIDES), ((1.0,),) * len(STRIDES))
        head = FCOSHead(channels, 1, classes, num_convs=2)
        self.fcos = FCOS(pyramid, classes, anchor_generator=anchors, head=head)

    def initialize(self, source: str) -> None:
        """Set the trunk's weights: "scratch", "IMAGENET1K_V1", or a file; see `Trunk.initialize`.

        Raises:
            CheckpointError: if they cannot be had.
        """
        trunk = Trunk("mobilenet_v2")
        trunk.initialize(source)
        state = {
            name.removeprefix("net.features."): value
            for name, value in trunk.state_dict().items()
            if name.startswith("net.features.")
        }
        self.fcos.backbone.body.load_state_dict(state)

    def freeze(self, layers: int) -> None:
        """Leave the trunk's first layers as they are, their statistics too."""
        self._frozen = list(self.fcos.backbone.body.children())[:layers]
        for layer in self._frozen:
            layer.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> BoxNet:
        """Training mode, but for what is frozen."""
        super().train(mode)
        for layer in self._frozen:
            layer.eval()
        return self

    def pyramid(self, images: Tensor) -> list[Tensor]:
        """(N, 3, H, W) normalised float to one map a stride."""
        return list(self.fcos.backbone(images).values())

    def forward(self, images: Tensor) -> Maps:
        """(N, 3, H, W) normalised float, sides multiples of 32, to class logits (N, A, classes),
        distances (N, A, 4) to left, top, right and bottom in strides, and centre-ness logits
        (N, A, 1), of the cells of all strides, row by row."""
        outputs = self.fcos.head(self.pyramid(images))
        return outputs["cls_logits"], outputs["bbox_regression"], outputs["bbox_ctrness"]

    def losses(self, images: Tensor, boxes: Sequence[Tensor], labels: Sequence[Tensor]) -> Tensor:
        """The sum of FCOS's three losses.

        Args:
            images: (N, 3, H, W) normalised float.
            boxes: for each image (M, 4) xyxy in its pixels.
            labels: for each image (M,) int64.
        """
        features = self.pyramid(images)
        outputs = {name: value.float() for name, value in self.fcos.head(features).items()}
        size = cast(tuple[int, int], tuple(images.shape[-2:]))
        anchors = self.fcos.anchor_generator(ImageList(images, [size] * len(images)), features)
        per_level = [feature.shape[-2] * feature.shape[-1] for feature in features]
        targets = [{"boxes": b, "labels": n} for b, n in zip(boxes, labels, strict=True)]
        parts: dict[str, Tensor] = self.fcos.compute_loss(targets, outputs, anchors, per_level)
        return torch.stack(list(parts.values())).sum()
