"""What passes through streams and batches."""

from __future__ import annotations

from utility_gate.errors import UtilityGateError
from utility_gate.types import Verdict

StreamItem = tuple[str, bytes]
"""The caller's id and an encoded image."""

StreamAnswer = tuple[str, Verdict | UtilityGateError]
"""The id and the verdict, or why there is none."""
