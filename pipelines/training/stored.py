"""A fit on disk, so that what comes after it can be done again without it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import nn

from pipelines.examples import Example
from pipelines.training.config import Recipe
from pipelines.training.network import HeadedNet
from utility_gate.errors import CheckpointError
from utility_gate.files import digest_json, whole_file

WEIGHTS = "net.safetensors"
FIT = "fit.json"


def fit_digest(net: HeadedNet, recipe: Recipe, examples: Sequence[Example], data: Path) -> str:
    """What decides a fit: recipe, heads, and which image was used how. The number of processes
    that decode images is none of it, nor is what happens when it is done."""
    heads = [[head.name, head.classes, head.multi_label] for head in net.heads]
    images = [
        [str(example.path.relative_to(data)), sorted(example.labels.items()), example.side]
        for example in examples
    ]
    return digest_json(
        [recipe.model_dump(exclude={"serve_side", "threads", "views", "workers"}), heads, images]
    )


def once(net: nn.Module, digest: str, out: Path, fit: Callable[[], float]) -> float:
    """Do `fit`, which trains `net` and gives its learning rate, unless `out` holds this very fit;
    then `net` gets its weights.

    Raises:
        CheckpointError: if `out` holds another one.
    """
    record = out / FIT
    if record.exists():
        stored = json.loads(record.read_text())
        if stored["digest"] != digest:
            raise CheckpointError(
                f"{out} holds a network that was trained with another recipe or on other images; "
                "choose another folder"
            )
        net.load_state_dict(load_file(out / WEIGHTS))
        net.eval()
        return float(stored["learning_rate"])
    rate = fit()
    state = {name: value.contiguous() for name, value in net.state_dict().items()}
    with whole_file(out / WEIGHTS) as partial:
        save_file(state, partial)
    with whole_file(record) as partial:
        partial.write_text(json.dumps({"digest": digest, "learning_rate": rate}) + "\n")
    return rate
