"""How far an image can be compressed and stay useful: for encoders in front of an upload."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from utility_gate.advice import advise_on
from utility_gate.checkpoint import Card
from utility_gate.errors import ImageTooLargeError, InputError
from utility_gate.images import DecodeLimits, Pixels, decode, encode_jpeg
from utility_gate.measure import MeasureLimits, measure
from utility_gate.predictor import Look, UtilityPredictor
from utility_gate.types import Advice, AdviceKind, Rung, Suggestion, Thresholds, is_probability

LADDER = (95, 90, 75, 60, 50, 40, 30, 20)
"""Tried from the top; with the steps between two of them that are at most 12 qualities. It ends
where `MeasureLimits` begins to call a quality low: a search for the lowest quality that a predictor
still likes finds its mistakes too, and most of them further down (docs/benchmarks.md)."""

_AS_IT_CAME = Advice(
    AdviceKind.ORIGINAL_FILE, None, "send the file as it is: made smaller it is not useful"
)


class Search:
    """Which quality to try next: down the ladder as long as all is useful, then by halves between
    the last useful and the first other one. Utility may rise again further down; that is not
    looked at. Knows neither images nor networks."""

    def __init__(self, useful: float, ladder: Sequence[int] = LADDER) -> None:
        """`useful` is the utility to keep.

        Raises:
            ValueError: unless the ladder has distinct qualities in 1..100.
        """
        if (
            not ladder
            or len(set(ladder)) < len(ladder)
            or not 1 <= min(ladder) <= max(ladder) <= 100
        ):
            raise ValueError(f"expected distinct JPEG qualities in 1..100, got {tuple(ladder)}")
        self._useful, self._left = useful, sorted(ladder)
        self._tried: list[Rung] = []
        self._failed: int | None = None
        self.chosen: Rung | None = None

    @property
    def next(self) -> int | None:
        """The quality to try next; None when all is known."""
        if self._failed is None:
            return self._left[-1] if self._left else None
        if self.chosen is None or self.chosen.quality - self._failed < 2:
            return None
        return (self.chosen.quality + self._failed) // 2

    def tell(self, rung: Rung) -> None:
        """What came of it."""
        self._tried.append(rung)
        if self._failed is None:
            self._left.pop()
        if rung.utility >= self._useful:
            self.chosen = rung
        else:
            self._failed = rung.quality

    def skip(self) -> None:
        """Leave the next quality out; only before one was found useful."""
        self._left.pop()

    @property
    def curve(self) -> tuple[Rung, ...]:
        """All that was tried, highest quality first."""
        return tuple(sorted(self._tried, key=lambda rung: -rung.quality))


class Suggester:
    """One suggestion in the making: call `step` until it says that nothing is left, from whatever
    threads, one at a time. A step judges one image."""

    def __init__(
        self,
        image: bytes | Pixels,
        card: Card,
        look: Callable[[bytes], Look],
        *,
        task: str = "",
        utility: float = 0.0,
        max_side: int = 0,
        limits: DecodeLimits | None = None,
        measure_limits: MeasureLimits | None = None,
        qualities: Sequence[int] = LADDER,
    ) -> None:
        """Take an encoded image (JPEG, PNG, WebP) or HWC uint8 RGB pixels.

        `look` judges encoded images as `card`'s predictor does. `task` "" is the card's, and
        `utility`, what is to be kept, its useful threshold if 0. `max_side`, if not 0, is what the
        longer side is scaled down to first, pixels.

        Raises:
            InputError: for a utility or a side out of range.
            ValueError: for qualities out of range.
        """
        if max_side < 0:
            raise InputError(f"expected a longest side of 0 or more pixels, got {max_side}")
        if not is_probability(utility):
            raise InputError(f"expected a utility in [0, 1], got {utility}")
        self._card, self._look, self._limits = card, look, limits
        self._measure_limits = measure_limits or MeasureLimits()
        self._task, self._max_side = task or card.task, max_side
        self._thresholds = card.thresholds
        if utility:
            self._thresholds = Thresholds(utility, min(utility, card.thresholds.review))
        self._search = Search(self._thresholds.useful, qualities)
        self._data = image if isinstance(image, bytes) else None
        self._pixels = None if isinstance(image, bytes) else scale_down(image, max_side)
        self._size = (0, 0)
        self._utility: float | None = None
        self._advice: tuple[Advice, ...] = ()
        self._ended = False
        self.judged = 0

    def step(self) -> bool:
        """Judge once more; False if nothing is left to judge.

        Raises:
            ImageError: if the image cannot be judged, or is too long for a JPEG.
        """
        quality = self._search.next
        if self._ended or quality is None:
            return False
        if self._pixels is None:
            return self._begin()
        data = encode_jpeg(self._pixels, quality)
        try:
            seen = self._see(data)
        except ImageTooLargeError:  # no file to send: from the next quality on it may be one
            self._search.skip()
        else:
            self._search.tell(Rung(quality, seen.utility, len(data)))
            if self._search.chosen is None:
                self._advice = self._advise(seen) if self._data is None else (_AS_IT_CAME,)
        self._ended = self._search.next is None
        return not self._ended

    def result(self) -> Suggestion:
        """What came out.

        Raises:
            ValueError: before the first step.
        """
        height, width = self._pixels.shape[:2] if self._pixels is not None else self._size
        return Suggestion(
            task=self._task,
            thresholds=self._thresholds,
            predictor=self._card.info,
            size=None if self._data is None else len(self._data),
            utility=self._utility,
            width=width,
            height=height,
            chosen=self._search.chosen,
            curve=self._search.curve,
            advice=self._advice,
        )

    def _begin(self) -> bool:
        """Judge the image as it came."""
        assert self._data is not None  # noqa: S101 - else there are pixels
        seen = self._see(self._data)
        self._utility, self._size = seen.utility, (seen.image.height, seen.image.width)
        if seen.utility < self._thresholds.useful:
            self._advice, self._ended = self._advise(seen), True
            return False
        self._pixels = scale_down(decode(self._data, self._limits).pixels, self._max_side)
        return True

    def _see(self, data: bytes) -> Look:
        self.judged += 1
        return self._look(data)

    def _advise(self, seen: Look) -> tuple[Advice, ...]:
        reasons = measure(seen.image, seen.crop, self._measure_limits, self._card.min_side)
        side = self._card.preprocess.resize
        return advise_on(seen.image, reasons, seen.utility, self._thresholds, side)


def suggest(
    predictor: UtilityPredictor,
    image: bytes | Pixels,
    *,
    utility: float = 0.0,
    max_side: int = 0,
    limits: DecodeLimits | None = None,
    qualities: Sequence[int] = LADDER,
) -> Suggestion:
    """The lowest JPEG quality at which an image, and it at every higher quality tried, is useful.

    `image` is encoded (JPEG, PNG, WebP) or HWC uint8 RGB pixels; other arguments as for
    `Suggester`. It is compressed as `compress` does and judged as the service judges: with the
    default qualities at most 13 times, the image as it came included.

    Raises:
        ImageError: if the image cannot be judged.
        InputError: for a utility or a side out of range.
        ValueError: for qualities out of range.
    """
    suggester = Suggester(
        image,
        predictor.card,
        lambda data: predictor.look(data, limits),
        utility=utility,
        max_side=max_side,
        limits=limits,
        qualities=qualities,
    )
    while suggester.step():
        pass
    return suggester.result()


def compress(
    data: bytes, quality: int, max_side: int = 0, limits: DecodeLimits | None = None
) -> bytes:
    """An encoded image as the file that a suggestion is about: baseline JPEG, 4:2:0, upright, and
    without metadata (EXIF, of which the rotation is carried out, and colour profiles).

    Raises:
        ImageError: if the image cannot be decoded or encoded.
        ValueError: if the quality is out of range.
    """
    return encode_jpeg(scale_down(decode(data, limits).pixels, max_side), quality)


def scale_down(pixels: Pixels, max_side: int) -> Pixels:
    """HWC uint8 RGB pixels with a longer side of at most `max_side` (0: any), else as they are."""
    height, width = pixels.shape[:2]
    longest = max(height, width)
    if not 0 < max_side < longest:
        return pixels
    size = (max(1, round(width * max_side / longest)), max(1, round(height * max_side / longest)))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))
