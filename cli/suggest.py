"""Say how far images can be compressed and stay useful; write them so, if asked.

For each image: the lowest JPEG quality from which on every quality tried is useful, what that
saves against the file itself and against qualities 95 and 90, and advice if there is none. Exit
code 1 if a file could not be judged; the others still are.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cli.advice import brief
from cli.judge import add_judge_arguments, load_predictor, open_client
from utility_gate.errors import ConfigError, UtilityGateError
from utility_gate.files import whole_file
from utility_gate.suggest import compress, suggest
from utility_gate.types import Suggestion, is_probability

_REFERENCES = (95, 90)
_ROW = "{:<32} {:>7} {:>7} {:>9} {:>9} {:>7} {:>7} {:>7}  {}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `utility-gate suggest`."""
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="JPEG, PNG or WebP")
    parser.add_argument(
        "--json", action="store_true", help="one JSON object a line, with the curve"
    )
    parser.add_argument(
        "--utility", type=float, default=0.0, metavar="U",
        help="keep this utility, 0 to 1; default: the useful threshold",
    )  # fmt: skip
    parser.add_argument(
        "--max-side", type=int, default=0, metavar="PIXELS", help="scale down to this side first"
    )
    parser.add_argument(
        "--write", type=Path, metavar="DIR",
        help="write each image as suggested to DIR/NAME.jpg: upright, without metadata; what is "
        "there already is not touched",
    )  # fmt: skip
    add_judge_arguments(parser, task="with --target: task to judge for")


def run(options: argparse.Namespace) -> int:
    """Suggest, print and write."""
    if options.max_side < 0 or not is_probability(options.utility):
        raise ConfigError(
            f"expected --max-side of 0 or more and --utility in [0, 1], got {options.max_side} and "
            f"{options.utility}"
        )
    ask, close = _open(options)
    failed = False
    if not options.json:
        heading = ("photo", "quality", "utility", "bytes", "was", "saved", "of q95", "of q90")
        print(_ROW.format(*heading, "advice"))
    try:
        for path in options.images:
            try:
                data = path.read_bytes()
                suggestion = ask(data)
                written = _write(options, path, data, suggestion)
            except (OSError, UtilityGateError) as error:
                failed = True
                _print_failure(path, str(error), as_json=options.json)
                continue
            (_print_json if options.json else _print_row)(path, suggestion, written)
    finally:
        close()
    return 1 if failed else 0


def _open(options: argparse.Namespace) -> tuple[Callable[[bytes], Suggestion], Callable[[], None]]:
    wanted = {"utility": options.utility, "max_side": options.max_side}
    client = open_client(options)
    if client is not None:
        return lambda data: client.suggest(data, **wanted), client.close
    if options.task:
        raise ConfigError("expected --target beside --task")
    predictor = load_predictor(options)
    return lambda data: suggest(predictor, data, **wanted), lambda: None


def _write(
    options: argparse.Namespace, source: Path, data: bytes, suggestion: Suggestion
) -> Path | None:
    """The file written; None if none was asked for, or there is no suggestion."""
    if options.write is None or suggestion.chosen is None:
        return None
    path: Path = options.write / f"{source.stem}.jpg"
    if path.exists() or path.is_symlink():
        raise ConfigError(f"{path}: expected a free name, it is taken; nothing was written")
    made = compress(data, suggestion.chosen.quality, options.max_side)
    with whole_file(path) as partial:
        partial.write_bytes(made)
    return path


def _print_failure(path: Path, error: str, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"path": str(path), "error": error}), flush=True)
    else:
        print(f"{path}: error: {error}", file=sys.stderr)


def _print_json(path: Path, suggestion: Suggestion, written: Path | None) -> None:
    line: dict[str, Any] = {"path": str(path), "found": suggestion.chosen is not None}
    if suggestion.chosen is not None:
        line |= dataclasses.asdict(suggestion.chosen)
        line["saved"] = suggestion.saved
        for quality in _REFERENCES:
            line[f"saved_against_{quality}"] = suggestion.saved_against(quality)
    line |= {
        "original_size": suggestion.size,
        "original_utility": suggestion.utility,
        "width": suggestion.width,
        "height": suggestion.height,
        "task": suggestion.task,
        "threshold": suggestion.thresholds.useful,
        "predictor": f"{suggestion.predictor.name} {suggestion.predictor.version}",
        "curve": [dataclasses.asdict(rung) for rung in suggestion.curve],
        "advice": [dataclasses.asdict(advice) for advice in suggestion.advice],
    }
    if written is not None:
        line["written"] = str(written)
    print(json.dumps(line), flush=True)


def _print_row(path: Path, suggestion: Suggestion, written: Path | None) -> None:
    name = str(path)
    name = name if len(name) <= 32 else "..." + name[-29:]
    chosen = suggestion.chosen
    against = (_share(suggestion.saved_against(q), suggestion, q) for q in _REFERENCES)
    told = [brief(advice) for advice in suggestion.advice]
    if suggestion.saved is not None and suggestion.saved < 0:
        told.append("the file is smaller as it is")
    if written is not None:
        told.append(f"written to {written}")
    print(
        _ROW.format(
            name,
            "-" if chosen is None else chosen.quality,
            f"{suggestion.utility or 0.0:.3f}" if chosen is None else f"{chosen.utility:.3f}",
            "-" if chosen is None else chosen.size,
            suggestion.size or "-",
            _percent(suggestion.saved, suggestion.size),
            *against,
            ", ".join(told),
        ).rstrip(),
        flush=True,
    )


def _share(saved: int | None, suggestion: Suggestion, quality: int) -> str:
    sizes = [rung.size for rung in suggestion.curve if rung.quality == quality]
    return _percent(saved, sizes[0] if sizes else None)


def _percent(saved: int | None, whole: int | None) -> str:
    return "-" if saved is None or whole is None else f"{saved / whole:.0%}"
