"""What a classifier is trained and measured on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipelines.examples import Example, Side, on_side
from pipelines.heads import Head


@dataclass(frozen=True, slots=True)
class Job:
    """What is trained: heads on examples (each on a side) below `data`, into `out`."""

    name: str
    release: str
    heads: tuple[Head, ...]
    examples: tuple[Example, ...]
    data: Path
    out: Path

    def side(self, side: Side) -> list[Example]:
        """The examples of one side."""
        return on_side(self.examples, side)
