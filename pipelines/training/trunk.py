"""A pipeline's classifier as a trunk for the gate in front of it: what knows the objects knows best
what compression leaves of them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from safetensors.torch import save_file
from torch import Tensor, nn

from pipelines.card import ClassifierCard
from pipelines.heads import Head
from utility_gate.checkpoint import load_card
from utility_gate.errors import CheckpointError, ConfigError
from utility_gate.files import whole_file
from utility_gate.training.module import ARCHITECTURES, Trunk

_PREFIX, _WEIGHT, _HALF = "trunk.", ".weight", ".fp16"
"""What an exported convolution's weights are called, around the name of its layer."""


def write_trunk(folder: Path, head: str, out: Path) -> ClassifierCard:
    """Write the trunk of the classifier in `folder`, with one head (by name) as its classifier, as
    `utility-gate train --init` takes it. Returns the classifier's card.

    Raises:
        CheckpointError: if there is no usable classifier.
        ConfigError: if it has no such head that chooses one class, or its network is none that a
            gate can have.
    """
    card, weights = load_card(folder, ClassifierCard)
    arch = str(card.training.get("recipe", {}).get("arch"))
    if arch not in ARCHITECTURES:
        raise ConfigError(f"expected a classifier on {' or '.join(ARCHITECTURES)}, got {arch}")
    trunk = _fill(Trunk(arch, ("confidence",)), weights, *card.find_head(head))
    said = {
        "classifier": f"{card.name} {card.version}, head {head}",
        "classifier_sha256": card.weights.sha256,
    }
    state = {name: value.contiguous() for name, value in trunk.state_dict().items()}
    with whole_file(out) as partial:
        save_file(state, partial, said)
    return card


def _fill(trunk: Trunk, weights: bytes, first: int, head: Head) -> Trunk:
    """Exporting folded batch norms into the convolutions before them: a shift of each is left."""
    layers = list(trunk.net.named_modules())
    convolutions = [name for name, layer in layers if isinstance(layer, nn.Conv2d)]
    norms = [(name, layer) for name, layer in layers if isinstance(layer, nn.BatchNorm2d)]
    linear = next(name for name, layer in layers if isinstance(layer, nn.Linear))
    state: dict[str, Tensor] = {}
    try:
        folded = _convolutions(weights)
        for name, (norm, layer) in zip(convolutions, norms, strict=True):
            weight, bias = folded[f"net.{name}"]
            state[f"net.{name}.weight"] = weight
            state[f"net.{norm}.weight"] = torch.ones_like(bias)
            state[f"net.{norm}.bias"] = bias
            state[f"net.{norm}.running_mean"] = torch.zeros_like(bias)
            state[f"net.{norm}.running_var"] = torch.full_like(bias, 1.0 - layer.eps)
            state[f"net.{norm}.num_batches_tracked"] = torch.tensor(0)
        weight, bias = folded["classify"]
        chosen = slice(first, first + len(head.classes))
        state[f"net.{linear}.weight"] = weight[chosen, :, 0, 0]
        state[f"net.{linear}.bias"] = bias[chosen]
        trunk.take(state)
    except (KeyError, RuntimeError) as error:
        raise CheckpointError(
            f"expected a classifier's layers, not quantised, as exported: {error}"
        ) from error
    return trunk.eval()


def _convolutions(weights: bytes) -> dict[str, tuple[Tensor, Tensor]]:
    """Weights and biases of all convolutions, by the names of their layers."""
    graph = onnx.load(io.BytesIO(weights)).graph
    stored = {one.name: one for one in graph.initializer}
    casts = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Cast"}

    def value(name: str) -> Tensor:
        array = numpy_helper.to_array(stored[casts.get(name, name)])
        return torch.from_numpy(np.array(array, np.float32))

    found = {}
    for node in graph.node:
        if node.op_type == "Conv":
            name = casts.get(node.input[1], node.input[1])
            layer = name.removesuffix(_HALF).removesuffix(_WEIGHT).removeprefix(_PREFIX)
            found[layer] = (value(node.input[1]), value(node.input[2]))
    return found
