"""What a degradation's fields may hold; each check says what was expected and what came."""

from __future__ import annotations

from utility_gate.images import Pixels

MAX_SEED = 2**63 - 1
"""The largest whole number in TOML."""


def whole(value: object, what: str, low: int, high: int) -> int:
    """`value` if it is a whole number in low..high; True and False are none.

    Raises:
        ValueError: for anything else.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ValueError(f"expected {what} in {low}..{high} (a whole number), got {value!r}")
    return value


def number(
    value: object, what: str, low: float, high: float, excluded: float | None = None
) -> float:
    """`value` as a float if it is a number in [low, high] other than `excluded`.

    Whole numbers become floats and -0.0 becomes 0.0, so that equal values read the same in
    tables.

    Raises:
        ValueError: for anything else, NaN and booleans included.
    """
    if (
        not isinstance(value, int | float)
        or isinstance(value, bool)
        or not low <= value <= high  # false for NaN
        or value == excluded
    ):
        without = "" if excluded is None else f" without {excluded:g}"
        raise ValueError(f"expected {what} in [{low:g}, {high:g}]{without}, got {value!r}")
    return float(value) + 0.0


def seed(value: object) -> int:
    """`value` if it can seed random numbers: a whole number in 0..2**63 - 1.

    Raises:
        ValueError: for anything else.
    """
    return whole(value, "a seed", 0, MAX_SEED)


def rgb(pixels: Pixels) -> Pixels:
    """`pixels` if they are HWC uint8 RGB and at least one.

    Raises:
        ValueError: for anything else.
    """
    if pixels.dtype != "uint8" or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise ValueError(f"expected HWC uint8 RGB, got {pixels.dtype} {pixels.shape}")
    return pixels
