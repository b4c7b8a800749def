"""Where a trunk came from, as its maker recorded it in the file's metadata."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import safe_open

from utility_gate.files import digest_bytes

PHOTOGRAPHS = "photograph_digests"
"""The photographs that it was pretrained on (`short_digest`), as JSON."""


def describe_init(source: str) -> dict[str, str]:
    """Where a trunk came from, for the card: a file's SHA-256 and what its maker recorded, but for
    single photographs."""
    if _is_named(source):
        return {"source": source}
    path = Path(source)
    recorded = {key: value for key, value in _metadata(path).items() if key != PHOTOGRAPHS}
    return {"source": path.name, "sha256": digest_bytes(path.read_bytes()), **recorded}


def photographs_of(source: str) -> frozenset[str]:
    """The photographs (`short_digest`) that a trunk's maker recorded; none of torchvision's."""
    if _is_named(source):
        return frozenset()
    return frozenset(json.loads(_metadata(Path(source)).get(PHOTOGRAPHS, "[]")))


def short_digest(digest: str) -> str:
    """Enough of a SHA-256 to know a photograph by."""
    return digest[:16]


def _is_named(source: str) -> bool:
    """Whether it is no file."""
    return source in ("scratch", "IMAGENET1K_V1")


def _metadata(path: Path) -> dict[str, str]:
    with safe_open(path, framework="pt") as file:
        return file.metadata() or {}
