"""API keys: who may call, known by the digests of their keys."""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utility_gate.errors import ConfigError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FIELDS = {"sha256", "rate", "burst"}


@dataclass(frozen=True, slots=True)
class Key:
    """One caller: a name for logs and metrics, the SHA-256 of the key (hex, lower case), and its
    limit: `rate` images per second on average (None: no limit), `burst` (>= 1) at once."""

    name: str
    sha256: str
    rate: float | None = None
    burst: float = 1.0


class Keys:
    """The keys of one file."""

    def __init__(self, keys: Iterable[Key]) -> None:
        self._by_digest = {key.sha256: key for key in keys}

    def find(self, presented: str) -> Key | None:
        """The entry of a key that a caller presents.

        The time taken tells nothing about the keys: it depends on the digest of what was
        presented, and nobody can choose a key by the beginning of its digest.
        """
        return self._by_digest.get(digest(presented)) if presented else None

    def still_holds(self, key: Key) -> Key | None:
        """The entry as it is now of a key found earlier; None if it was taken away."""
        return self._by_digest.get(key.sha256)


def digest(key: str) -> str:
    """What is stored of a key. One SHA-256, no salt, not slow: a key is 256 random bits, no
    password, and cannot be guessed however fast the guesses are."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def check_name(name: str) -> str:
    """`name`, if it may be the name of a key.

    Raises:
        ConfigError: if it is not 1 to 64 letters, digits, "-" and "_".
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(
            "expected as the name of a key 1 to 64 letters, digits, '-' and '_', not beginning "
            f"with the last two; got {len(name)} characters"
        )
    return name


def load_keys(path: Path) -> Keys:
    """The keys of a TOML file, one table each: `[name]`, `sha256`, perhaps `rate`, `burst`.

    Raises:
        ConfigError: if it cannot be read or an entry cannot be used. Messages repeat neither the
            path nor any value: either may be a key that was put in the wrong place.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"api_keys: expected the path of a readable TOML file of keys: {error.strerror}"
        ) from None
    except ValueError as error:  # TOML's errors and UTF-8's name places, not content
        place = "not UTF-8" if isinstance(error, UnicodeDecodeError) else _place(error)
        raise ConfigError(f"api_keys: expected TOML, got something else ({place})") from None
    if not tables:  # being written, perhaps; it would shut everybody out
        raise ConfigError("api_keys: expected at least one key, got an empty file")
    keys = [_to_key(number, *entry) for number, entry in enumerate(tables.items(), start=1)]
    if len({key.sha256 for key in keys}) < len(keys):
        raise ConfigError("api_keys: expected a key of its own under each name, got one twice")
    return Keys(keys)


def _place(error: ValueError) -> str:
    found = re.search(r"at (line \d+, column \d+|end of document)", str(error))
    return found[0] if found else "no place known"


def _to_key(number: int, name: str, table: Any) -> Key:
    where = f"api_keys: entry {number}"
    try:
        check_name(name)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    if not isinstance(table, dict) or "sha256" not in table or set(table) - _FIELDS:
        raise ConfigError(f"{where}: expected a table of sha256, and perhaps rate and burst")
    sha256 = table["sha256"]
    if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256.lower()):
        raise ConfigError(
            f"{where}: expected sha256 to be 64 hexadecimal digits, which `utility-gate key` "
            "prints; got something else (never put the key itself here)"
        )
    rate = _positive(where, table, "rate")
    burst = _positive(where, table, "burst")
    if rate is None and burst is not None:
        raise ConfigError(f"{where}: expected a rate beside burst, got none")
    if burst is not None and burst < 1:
        raise ConfigError(f"{where}: expected burst to be at least 1, got {burst}")
    return Key(name, sha256.lower(), rate, burst or max(1.0, rate or 0.0))


def _positive(where: str, table: dict[str, Any], name: str) -> float | None:
    value = table.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e9:
        raise ConfigError(f"{where}: expected {name} to be a number above 0 and below 1e9")
    return float(value)
