"""A classifier's results as files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipelines.evaluate import HeadResult
from pipelines.pictures import draw_confusion
from pipelines.tables import class_table, head_table


def write_results(results: Sequence[HeadResult], out: Path, *further: str) -> None:
    """`results.md` (with further tables at its end), `results.json`, and a confusion matrix a
    head."""
    out.mkdir(parents=True, exist_ok=True)
    parts = [head_table(results)]
    for result in results:
        if len(result.head.classes) <= 30:
            parts.append(class_table(result))
        draw_confusion(result, out / f"confusion-{result.head.name}.png")
    parts += further
    (out / "results.md").write_text("\n".join(parts))
    numbers = {result.head.name: to_numbers(result) for result in results}
    (out / "results.json").write_text(json.dumps(numbers, indent=2, sort_keys=True) + "\n")


def to_numbers(result: HeadResult) -> dict[str, Any]:
    """A result as JSON has it."""
    return {**asdict(result.scores), "accuracy_with_views": result.with_views}
