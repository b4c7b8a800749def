"""The files that a study is measured on: short names for them, and their digests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from utility_gate.errors import TableError
from utility_gate.files import digest_file


def digest_inputs(paths: Sequence[Path]) -> dict[str, str]:
    """SHA-256 of files, by their short names.

    Raises:
        TableError: if one is missing.
    """
    found = {}
    for path, name in short_names(paths).items():
        try:
            found[name] = digest_file(path)
        except OSError as error:
            raise TableError(f"{path}: expected a file to evaluate on: {error}") from error
    return found


def short_names(paths: Sequence[Path]) -> dict[Path, str]:
    """The shortest end of each path that tells it from the others; of a machine's folders no more
    is written down than that."""
    found = {}
    for path in paths:
        others = [other.parts for other in paths if other != path]
        depth = 1
        while depth < len(path.parts) and any(
            other[-depth:] == path.parts[-depth:] for other in others
        ):
            depth += 1
        found[path] = "/".join(path.parts[-depth:])
    return found
