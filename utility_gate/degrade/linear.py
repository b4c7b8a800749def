"""sRGB to linear light and back by tables: lenses and sensors add up light, not pixel values.

Light is a whole number, 0 (black) to 65535 (white). With whole numbers and tables alone, sums
are exact in any order and no result hangs on a processor's `pow`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from utility_gate.images import Pixels

WHITE = 65_535

Light = npt.NDArray[np.uint16]


def _linear(value: float) -> float:
    """The sRGB curve (IEC 61966-2-1), 0-1 to 0-1."""
    return value / 12.92 if value <= 0.04045 else float(((value + 0.055) / 1.055) ** 2.4)


LEVELS: Light = np.array([round(WHITE * _linear(v / 255)) for v in range(256)], np.uint16)
"""The light of each of the 256 pixel values."""

_BOUNDARIES = np.array([WHITE * _linear((v + 0.5) / 255) for v in range(255)])

PIXEL_VALUES: Pixels = np.searchsorted(_BOUNDARIES, np.arange(WHITE + 1)).astype(np.uint8)
"""The pixel value nearest to each amount of light; index 0-65535."""
