"""Too few photons: noise of the sensor and of the dark, in linear light."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from utility_gate.degrade import checks
from utility_gate.degrade.base import PixelDegradation
from utility_gate.degrade.linear import LEVELS, PIXEL_VALUES, WHITE, Light
from utility_gate.images import Pixels

_BITS = 12
_QUANTILES = (np.arange(2**_BITS) + 0.5) / 2**_BITS

_MAX_PHOTONS = 1e6
_MAX_READ_NOISE = 1e4


@dataclass(frozen=True, slots=True)
class SensorNoise(PixelDegradation):
    """Noise of a sensor that counts `photons` (1 to 1e6) where the image is white.

    Counts are Poisson; reading them out adds Gaussian noise with a standard deviation of
    `read_noise` (0 to 1e4) photons. Channels are independent. The copy is a PNG.
    """

    name: ClassVar[str] = "sensor_noise"
    severities: ClassVar = tuple(
        {"photons": photons, "read_noise": read_noise}
        for photons, read_noise in (
            (1000.0, 2.0),
            (300.0, 3.0),
            (100.0, 3.0),
            (40.0, 3.0),
            (15.0, 3.0),
        )
    )

    photons: float
    read_noise: float
    seed: int = 0

    def __post_init__(self) -> None:
        _check_sensor(self)

    def alter(self, pixels: Pixels, key: str = "") -> Pixels:
        """What the sensor recorded."""
        return _expose(pixels, 1.0, self.photons, self.read_noise, self.generator(key))

    @property
    def label(self) -> str:
        """Photons at white."""
        return f"sensor_noise {self.photons:g} photons"


@dataclass(frozen=True, slots=True)
class LowLight(PixelDegradation):
    """The scene had only `exposure` (1e-4 to 1, 1 excluded) of its light and nobody made up for it.

    The image is dark and noisy as a sensor is that counts `photons` where the source was white
    in full light, with `read_noise` as in `SensorNoise`. The copy is a PNG.
    """

    name: ClassVar[str] = "low_light"
    severities: ClassVar = tuple(
        {"exposure": exposure} for exposure in (0.5, 0.25, 0.1, 0.04, 0.015)
    )

    exposure: float
    photons: float = 2000.0
    read_noise: float = 3.0
    seed: int = 0

    def __post_init__(self) -> None:
        exposure = checks.number(self.exposure, "an exposure", 1e-4, 1, excluded=1)
        object.__setattr__(self, "exposure", exposure)
        _check_sensor(self)

    def alter(self, pixels: Pixels, key: str = "") -> Pixels:
        """What the sensor recorded in the dark."""
        return _expose(pixels, self.exposure, self.photons, self.read_noise, self.generator(key))

    @property
    def label(self) -> str:
        """The share of the light."""
        return f"low_light x{self.exposure:g}"


def _check_sensor(values: SensorNoise | LowLight) -> None:
    photons = checks.number(values.photons, "photons at white", 1, _MAX_PHOTONS)
    read_noise = checks.number(values.read_noise, "read noise in photons", 0, _MAX_READ_NOISE)
    object.__setattr__(values, "photons", photons)
    object.__setattr__(values, "read_noise", read_noise)
    checks.seed(values.seed)


def _expose(
    pixels: Pixels,
    exposure: float,
    photons: float,
    read_noise: float,
    generator: np.random.Generator,
) -> Pixels:
    """Noise by tables of quantiles, so that only raw random bits are drawn: NumPy promises to
    keep these, but not its distributions. With 4096 quantiles, noise ends at 3.7 sigma.
    """
    count = checks.rgb(pixels).size
    words: npt.NDArray[np.uint64] = generator.bit_generator.random_raw((count + 1) // 2)
    bits = words.astype("<u8", copy=False).view("<u4")[:count].reshape(pixels.shape)
    counted = (bits >> 20).astype(np.int32)  # the upper 12 bits
    counted += pixels.astype(np.int32) << _BITS
    light = _counted_light(exposure, photons).take(counted).astype(np.int32)
    light += _read_out(read_noise / photons).take(bits & (2**_BITS - 1))
    return PIXEL_VALUES.take(light.clip(0, WHITE))


@lru_cache(maxsize=16)
def _counted_light(exposure: float, photons: float) -> Light:
    """Quantiles of the light that is counted, for each pixel value: 256 x 4096, flat.

    A pixel that counted more than `photons` is full and stays white.
    """
    table = np.zeros((256, 2**_BITS), np.uint16)
    for value in range(1, 256):
        expected = float(LEVELS[value]) / WHITE * exposure * photons
        light = _poisson_quantiles(expected) * (WHITE / photons)
        table[value] = np.minimum(light + 0.5, WHITE)
    return table.ravel()


def _poisson_quantiles(mean: float) -> npt.NDArray[np.float64]:
    reach = 6 * math.sqrt(mean)
    first = max(0, math.floor(mean - reach - 10))
    counts = np.arange(first, math.ceil(mean + reach + 20))
    # p(n) = p(n - 1) * mean / n, up to a factor; in logarithms because p(first) may be tiny.
    weights = np.cumsum(math.log(mean) - np.log(np.maximum(counts, 1)))
    weights = np.exp(weights - weights.max())
    places = np.searchsorted(weights.cumsum() / weights.sum(), _QUANTILES)
    quantiles: npt.NDArray[np.float64] = (first + places).astype(np.float64)
    return quantiles


@lru_cache(maxsize=16)
def _read_out(deviation: float) -> npt.NDArray[np.int32]:
    """Quantiles of the noise of reading out, as light; `deviation` is a share of white."""
    return np.rint(_normal_quantiles() * (deviation * WHITE)).clip(-WHITE, WHITE).astype(np.int32)


@lru_cache
def _normal_quantiles() -> npt.NDArray[np.float64]:
    return np.array([NormalDist().inv_cdf(float(quantile)) for quantile in _QUANTILES])
