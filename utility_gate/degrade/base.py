"""What every degradation can do."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from utility_gate.degrade.checks import whole
from utility_gate.degrade.codecs import decode_copy, encode_png, png_encoder
from utility_gate.images import Pixels

View = tuple[float, float, float, float]
"""x0, y0, x1, y1: a region of the source, in its pixels."""


@dataclass(frozen=True, slots=True)
class Degradation(ABC):
    """A way to spoil an image, with fixed parameters; equal ones make equal copies.

    Everywhere `pixels` are HWC uint8 RGB, 0-255, and `key` is the SHA-256 of the source (hex):
    whatever is random depends on `seed`, the parameters and `key` alone, so each image has its
    own noise and the same job makes the same bytes. Degradations that are not random ignore it.

    Raises:
        ValueError: if a parameter is of the wrong type or out of range.
    """

    name: ClassVar[str]
    """In tables, TOML and the registry."""

    severities: ClassVar[tuple[Mapping[str, Any], ...]]
    """Five sets of parameters, from mild to severe."""

    @abstractmethod
    def apply(self, pixels: Pixels, key: str = "") -> bytes:
        """The encoded copy.

        Raises:
            ValueError: unless `pixels` are HWC uint8 RGB.
        """

    def alter(self, pixels: Pixels, key: str = "") -> Pixels:
        """What somebody sees who decodes the copy; HWC uint8 RGB, perhaps read-only."""
        return decode_copy(self.apply(pixels, key))

    def copy(self, pixels: Pixels, key: str = "") -> tuple[bytes, Pixels]:
        """`apply` and `alter` at once, which is cheaper than one after the other."""
        encoded = self.apply(pixels, key)
        return encoded, decode_copy(encoded)

    def view(self, width: int, height: int, key: str = "") -> View:  # noqa: ARG002
        """The region of a `width` x `height` source that the copy shows."""
        return (0.0, 0.0, float(width), float(height))

    def size(self, width: int, height: int, key: str = "") -> tuple[int, int]:
        """Width and height of the copy of a `width` x `height` source."""
        x0, y0, x1, y1 = self.view(width, height, key)
        return (round(x1 - x0), round(y1 - y0))

    @property
    def parameters(self) -> dict[str, Any]:
        """Every field, as JSON has them; `from_parameters` makes the degradation again."""
        return {_key(field): getattr(self, field.name) for field in dataclasses.fields(self)}

    @property
    def quality(self) -> int | None:
        """JPEG quality of the last compression; None if that is no JPEG."""
        return None

    @property
    @abstractmethod
    def label(self) -> str:
        """A few words for plots and messages, such as "jpeg 30"."""

    @abstractmethod
    def encoder(self) -> dict[str, Any]:
        """Provenance of the copy's bytes, as JSON: at least `format` and `library`."""

    @classmethod
    def at_severity(cls, /, severity: int, **others: Any) -> Self:
        """The degradation at severity 1 (mild) to 5, with `others` beside it, such as a seed.

        Raises:
            ValueError: if the severity is none, or it sets one of `others` already.
        """
        chosen = cls.severities[whole(severity, "a severity", 1, len(cls.severities)) - 1]
        twice = sorted(chosen.keys() & others.keys())
        if twice:
            raise ValueError(f"expected either a severity or {', '.join(twice)}, got both")
        return cls.from_parameters({**chosen, **others})

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any]) -> Self:
        """The inverse of `parameters`; fields that have a default may be missing.

        Raises:
            ValueError: for unknown, missing or impossible parameters.
        """
        fields = {_key(field): field for field in dataclasses.fields(cls)}
        needed = {key for key, f in fields.items() if f.default is dataclasses.MISSING}
        unknown = [key for key in parameters if key not in fields]
        if unknown or not needed <= parameters.keys():
            raise ValueError(
                f"expected the parameters {', '.join(fields)} (needed: "
                f"{', '.join(sorted(needed))}), got {', '.join(map(str, parameters)) or 'none'}"
            )
        return cls(**{fields[key].name: value for key, value in parameters.items()})

    def generator(self, key: str) -> np.random.Generator:
        """The random numbers of this degradation for the source `key`."""
        seed = str(getattr(self, "seed", ""))
        parts = (seed, self.name, canonical(self.parameters), key)
        digest = hashlib.sha256("\x1f".join(parts).encode()).digest()
        return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "big")))


class PixelDegradation(Degradation):
    """Changes pixels and leaves compression alone.

    The copy is a PNG, so that the distortion alone is judged; who wants it compressed as well
    puts it into a chain.
    """

    __slots__ = ()

    def apply(self, pixels: Pixels, key: str = "") -> bytes:
        """The altered pixels as PNG."""
        return encode_png(self.alter(pixels, key))

    def copy(self, pixels: Pixels, key: str = "") -> tuple[bytes, Pixels]:
        """See `Degradation.copy`; what is stored without loss need not be decoded again."""
        altered = self.alter(pixels, key)
        return encode_png(altered), altered

    @abstractmethod
    def alter(self, pixels: Pixels, key: str = "") -> Pixels:
        """The altered pixels, an array of their own; HWC uint8 RGB."""

    def encoder(self) -> dict[str, Any]:
        """Provenance of the PNG."""
        return png_encoder()


def canonical(parameters: Mapping[str, Any]) -> str:
    """JSON with sorted keys and no spaces: equal parameters, equal text."""
    return json.dumps(parameters, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _key(field: dataclasses.Field[Any]) -> str:
    return str(field.metadata.get("key", field.name))
