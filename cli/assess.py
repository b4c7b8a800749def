"""Judge image files and print a table, or with --json one object a line.

Exit code 1 if a file could not be judged; the others are still judged.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cli.advice import brief
from cli.judge import Judge, add_judge_arguments, open_judge
from utility_gate.degrade import ladder
from utility_gate.errors import UtilityGateError
from utility_gate.images import decode
from utility_gate.types import Verdict


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `utility-gate assess`."""
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="JPEG, PNG or WebP")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument(
        "--qualities",
        type=_qualities,
        metavar="Q,Q,...",
        help="judge each image re-compressed at these JPEG qualities instead",
    )
    add_judge_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Judge and print."""
    failed = False
    printer = _print_json if options.json else _TablePrinter()
    judge, close = open_judge(options)
    try:
        for row in _judge_all(options.images, options.qualities, judge):
            failed |= row.error is not None
            printer(row)
    finally:
        close()
    return 1 if failed else 0


@dataclass(frozen=True, slots=True)
class Row:
    """One image judged, or the reason why not; `quality` None is the file as it is."""

    path: Path
    quality: int | None
    verdict: Verdict | None
    error: str | None
    milliseconds: float


def _qualities(text: str) -> tuple[int, ...]:
    try:
        return tuple(jpeg.quality for jpeg in ladder(tuple(int(q) for q in text.split(","))))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected qualities such as 90,30,5: {error}") from error


def _judge_all(paths: list[Path], qualities: tuple[int, ...] | None, judge: Judge) -> Iterator[Row]:
    for path in paths:
        for quality in qualities or (None,):
            started = time.perf_counter()
            try:
                data = path.read_bytes()
                if quality is not None:
                    data = ladder((quality,))[0].apply(decode(data).pixels)
                started = time.perf_counter()
                verdict, error = judge(data), None
            except (OSError, UtilityGateError) as failure:
                verdict, error = None, str(failure)
            yield Row(path, quality, verdict, error, 1000 * (time.perf_counter() - started))


def _print_json(row: Row) -> None:
    line: dict[str, Any] = {"path": str(row.path)}
    if row.quality is not None:
        line["quality"] = row.quality
    if row.verdict is None:
        line["error"] = row.error
    else:
        line |= {
            "utility": None if row.verdict.utility is None else round(row.verdict.utility, 6),
            "decision": row.verdict.decision,
            "mode": row.verdict.mode,
            "judgement": row.verdict.judgement,
            "reasons": [
                {"kind": r.kind, "value": r.value, "threshold": r.threshold, "message": r.message}
                for r in row.verdict.reasons
            ],
            "advice": [
                {"kind": a.kind, "value": a.value, "message": a.message} for a in row.verdict.advice
            ],
            "task": row.verdict.task,
            "milliseconds": round(row.milliseconds, 2),
        }
        if row.verdict.predictor is not None:
            line["predictor"] = f"{row.verdict.predictor.name} {row.verdict.predictor.version}"
        if row.verdict.image is not None:
            line |= dataclasses.asdict(row.verdict.image)
        if row.verdict.note:
            line["note"] = row.verdict.note
    print(json.dumps(line), flush=True)


class _TablePrinter:
    """Rows as they come, under one heading."""

    _FORMAT = "{:<32} {:>7} {:>7}  {:<10} {:>7}  {}"

    def __init__(self) -> None:
        self._headed = False

    def __call__(self, row: Row) -> None:
        if not self._headed:
            print(
                self._FORMAT.format(
                    "photo", "quality", "utility", "decision", "ms", "reasons -> advice"
                )
            )
            self._headed = True
        quality = "-" if row.quality is None else str(row.quality)
        name = str(row.path)
        name = name if len(name) <= 32 else "..." + name[-29:]
        if row.verdict is None:
            print(f"{name:<32} {quality:>7} error: {row.error}", file=sys.stderr)
            return
        told = ", ".join(f"{r.kind} {r.value:.3g}" for r in row.verdict.reasons)
        if row.verdict.advice:
            told += f" -> {', '.join(brief(advice) for advice in row.verdict.advice)}"
        print(
            self._FORMAT.format(
                name,
                quality,
                "-" if row.verdict.utility is None else f"{row.verdict.utility:.3f}",
                row.verdict.decision,
                f"{row.milliseconds:.1f}",
                told,
            ),
            flush=True,
        )
