"""What happens to an image on its way: the JPEG ladder.

Labelling makes degraded copies with this module and training makes them again, so that no
copy has to be stored; the SHA-256 in the label table proves that both made the same bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

from utility_gate.images import Pixels, encode_jpeg

PRISTINE = "none"
"""Name in tables of the copy that is the source itself."""

DEFAULT_QUALITIES = (90, 70, 50, 40, 30, 20, 15, 10, 5)
"""Nine steps, as in the paper (section V), dense where networks begin to fail."""


@dataclass(frozen=True, slots=True)
class Jpeg:
    """JPEG compression at libjpeg quality 1-100, chroma 4:2:0.

    Raises:
        ValueError: if the quality is out of range.
    """

    quality: int

    def __post_init__(self) -> None:
        if not 1 <= self.quality <= 100:
            raise ValueError(f"expected a JPEG quality in 1..100, got {self.quality}")

    @property
    def name(self) -> str:
        """Name in tables."""
        return "jpeg"

    def apply(self, pixels: Pixels) -> bytes:
        """HWC uint8 RGB to the encoded copy."""
        return encode_jpeg(pixels, self.quality)


def ladder(qualities: tuple[int, ...] = DEFAULT_QUALITIES) -> tuple[Jpeg, ...]:
    """One JPEG degradation per quality, best first.

    Raises:
        ValueError: if qualities repeat, are out of range or are none.
    """
    if not qualities or len(set(qualities)) != len(qualities):
        raise ValueError(f"expected distinct JPEG qualities, got {qualities}")
    return tuple(Jpeg(quality) for quality in sorted(qualities, reverse=True))
