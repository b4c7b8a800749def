"""What differs between two descriptions, for people."""

from __future__ import annotations

import json
from typing import Any


def differences(before: Any, now: Any, path: str = "", *, known_to_both: bool = False) -> list[str]:
    """What differs between two descriptions, as "networks.vgg19.sha256: 12ab -> 34cd".

    `known_to_both` leaves out what one of them does not speak of: later versions record more.
    """
    if isinstance(before, dict) and isinstance(now, dict):
        keys = before.keys() & now.keys() if known_to_both else before.keys() | now.keys()
        return [
            line
            for key in sorted(keys)
            for line in differences(
                before.get(key),
                now.get(key),
                f"{path}.{key}".lstrip("."),
                known_to_both=known_to_both,
            )
        ]
    if before == now:
        return []
    return [f"{path}: {_short(before)} -> {_short(now)}"]


def _short(value: Any) -> str:
    if isinstance(value, list) and all(isinstance(item, dict) for item in value):
        value = [item.get("label", item) for item in value]
    text = json.dumps(value)
    return text if len(text) <= 200 else f"{text[:197]}..."
