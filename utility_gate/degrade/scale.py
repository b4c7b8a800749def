"""Sizes after scaling."""

from __future__ import annotations


def scaled_size(width: int, height: int, longer_side: int) -> tuple[int, int]:
    """Width and height in pixels once the longer one is `longer_side`, rounded to whole pixels, at
    least one. Whole numbers only: halves go up, everywhere alike."""
    longer = max(width, height)
    new_width, new_height = (
        max(1, (2 * side * longer_side + longer) // (2 * longer)) for side in (width, height)
    )
    return (new_width, new_height)
