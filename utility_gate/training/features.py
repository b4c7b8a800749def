"""What a frozen trunk sees of copies: computed once, kept on disk, and used by every head."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save as to_bytes
from torch import Tensor
from torch.utils.data import DataLoader

from utility_gate.errors import TableError
from utility_gate.files import digest_bytes, digest_json, whole_file
from utility_gate.sides import LabelledCopy
from utility_gate.split import unit_hash
from utility_gate.training.dataset import CopyDataset
from utility_gate.training.draws import Draw
from utility_gate.training.module import Trunk

log = logging.getLogger(__name__)

_BATCH = 16
_KEPT_EVERY = 4096
"""Looks between two writes to disk: what a killed run loses."""


def look_seed(seed: int, image_digest: str, view: int) -> int:
    """The seed of look `view` (from 0) at a copy; ever the same."""
    return int(unit_hash("look", str(seed), image_digest, str(view)) * 2**53)


def see(
    trunk: Trunk,
    dataset: CopyDataset,
    copies: list[LabelledCopy],
    views: int,
    seed: int,
    workers: int,
    cache: Path | None,
) -> Tensor:
    """Features (len(copies), views, F), float32, on the CPU, of a frozen trunk in eval mode.

    `dataset` shows the copies; look 0 of each is the copy as it is where `dataset` alters
    nothing. With `cache` what was seen before, by the same trunk in the same way, is read from
    there, and the rest is added to it.

    Raises:
        TableError: if the cache cannot be written.
    """
    store = _Store(cache, _key(trunk, dataset, seed)) if cache is not None else _Store(None, "")
    looks = [(copy.label.image_digest, view) for copy in copies for view in range(views)]
    missing = {look: number // views for number, look in enumerate(looks) if look not in store}
    if missing:
        log.info("%d of %d looks are new", len(missing), len(looks))
        draws = [(index, look_seed(seed, *look)) for look, index in missing.items()]
        store.add(missing, _compute(trunk, dataset, draws, workers))
    features = np.stack([store[look] for look in looks])
    return torch.from_numpy(features.reshape(len(copies), views, -1))


@torch.inference_mode()
def _compute(
    trunk: Trunk, dataset: CopyDataset, draws: list[Draw], workers: int
) -> Iterable[np.ndarray]:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    trunk.to(device).eval()
    loader = DataLoader(dataset, _BATCH, sampler=draws, num_workers=workers)
    for images, _ in loader:
        seen = trunk(images.to(device, memory_format=torch.channels_last))
        yield seen.float().cpu().numpy()
    trunk.cpu()


class _Store:
    """Features by look, in memory and, if there is a folder, on disk."""

    def __init__(self, folder: Path | None, key: str) -> None:
        self._folder = folder / f"features-{key}" if folder is not None else None
        self._kept: dict[tuple[str, int], np.ndarray] = {}
        parts = sorted(self._folder.glob("*.npz")) if self._folder is not None else []
        for part in parts:
            with np.load(part) as stored:
                names = json.loads(str(stored["looks"]))
                looks = [(str(digest), int(view)) for digest, view in names]
                self._kept.update(zip(looks, stored["features"], strict=True))

    def __contains__(self, look: tuple[str, int]) -> bool:
        return look in self._kept

    def __getitem__(self, look: tuple[str, int]) -> np.ndarray:
        return self._kept[look]

    def add(self, looks: Iterable[tuple[str, int]], batches: Iterable[np.ndarray]) -> None:
        """Take the features of these looks, in their order."""
        waiting: list[tuple[str, int]] = []
        names = iter(looks)
        for batch in batches:
            for row in batch:
                look = next(names)
                self._kept[look] = row
                waiting.append(look)
            if len(waiting) >= _KEPT_EVERY:
                self._write(waiting)
                waiting = []
        if waiting:
            self._write(waiting)

    def _write(self, looks: list[tuple[str, int]]) -> None:
        if self._folder is None:
            return
        path = self._folder / f"{digest_json(looks)[:16]}.npz"
        features = np.stack([self._kept[look] for look in looks])
        try:
            with whole_file(path, shared=True) as partial, partial.open("wb") as file:
                np.savez(file, looks=json.dumps(looks), features=features)
        except OSError as error:
            raise TableError(f"{path}: cannot keep features there: {error}") from error


def _key(trunk: Trunk, dataset: CopyDataset, seed: int) -> str:
    """What decides the features beside the copies themselves."""
    state = {name: value.contiguous() for name, value in trunk.state_dict().items()}
    how = {
        "trunk": digest_bytes(to_bytes(state)),
        "features": trunk.features,
        "looks": dataset.describe(),
        "seed": seed,
    }
    return digest_json(how)[:16]
