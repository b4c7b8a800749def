"""BRISQUE (Mittal, Moorthy and Bovik, 2012), a visual quality that needs no reference: the trivial
gate (c). Visual quality is what the paper says utility is not (section I, Fig. 1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from utility_gate.degrade import decode_copy
from utility_gate.errors import ConfigError

FLAT = 200.0
"""Stands for the BRISQUE of an image without any texture, of which there is none: worse than what
the worst compression gives (about 100)."""


def open_brisque() -> Callable[[bytes], float]:
    """A scorer: encoded image to minus its BRISQUE, so that higher is better. It may be called from
    several threads.

    Raises:
        ConfigError: if the extra `brisque` is not installed.
    """
    try:
        from brisque import BRISQUE
    except ImportError as error:
        raise ConfigError(
            "the gate (c) needs BRISQUE: pip install utility-gate[brisque], or leave it out "
            f"({error})"
        ) from error
    model = BRISQUE(url=False)
    scale = model.scale_features

    def scale_numbers(features: Sequence[Any]) -> Any:
        # brisque 0.2 makes arrays of one element, of which NumPy 2.4 makes no number any more.
        return scale([np.asarray(feature).item() for feature in features])

    model.scale_features = scale_numbers

    def score(data: bytes) -> float:
        with np.errstate(all="ignore"):
            value = float(model.score(decode_copy(data)))
        return -(value if np.isfinite(value) else FLAT)

    return score
