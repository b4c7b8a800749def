"""Which of a pipeline's two networks a run trains."""

from __future__ import annotations

from collections.abc import Sequence

from pipelines.embedded import CLASSIFIER, DETECTOR
from utility_gate.errors import ConfigError

PARTS = (CLASSIFIER, DETECTOR)


def check_parts(parts: Sequence[str]) -> None:
    """Refuse what is no part.

    Raises:
        ConfigError: if there is one.
    """
    strangers = set(parts) - set(PARTS)
    if strangers:
        raise ConfigError(f"expected the parts {', '.join(PARTS)}, got {', '.join(strangers)}")
