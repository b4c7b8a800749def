"""What to do about an image that is not useful: cheap, and known from the image alone."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from utility_gate.images import DecodedImage
from utility_gate.measure import blocking, estimate_jpeg_quality
from utility_gate.types import Advice, AdviceKind, Reason, ReasonKind, Thresholds

HIGHEST = 95
"""No higher JPEG quality is advised: from here on files grow and nothing is gained."""

_STEP = 5
"""Advised qualities are multiples of it."""

_FINE = 75
"""From this quality on a file's own compression is not what its blocks come from."""

_BLOCKED = 0.25
"""`measure.blocking` of most photographs saved at quality 20 or less and then at 95 is above it, of
few as they are (`tools/fit_quality_advice.py`)."""


@dataclass(frozen=True, slots=True)
class QualityModel:
    """How likely an image that is not useful at one JPEG quality is useful at a higher one.

    A logistic model in the logarithms of both qualities and in the distance, in logits, of the
    utility from the useful threshold. The numbers come from `tools/fit_quality_advice.py`: the
    embedded predictor on ImageNet photographs of the training side, with what they are worth on
    held-out ones; for other predictors they are a guess. `enough` is the chance to be reached by
    the advice; where not even `HIGHEST` has the chance `least`, compression is not the matter.
    """

    bias: float = 1.76
    distance: float = 0.295
    now: float = -2.801
    both: float = 0.295
    then: float = 2.478
    enough: float = 0.85
    least: float = 0.4

    def chance(self, quality: int, distance: float, then: int) -> float:
        """The chance, 0 to 1, of an image at `quality` whose utility lies `distance` (<= 0, logits)
        from the threshold to be useful at quality `then`."""
        return 1 / (1 + math.exp(-self._fixed(quality, distance) - self.then * math.log(then)))

    def reach(self, quality: int, distance: float) -> int:
        """The lowest quality above `quality`, in steps of 5, whose chance is enough; `HIGHEST` if
        none has it."""
        missing = math.log(self.enough / (1 - self.enough)) - self._fixed(quality, distance)
        wanted = math.exp(min(missing / self.then, 5.0))
        steps = math.ceil(max(wanted, quality + 1) / _STEP)
        return min(_STEP * steps, HIGHEST)

    def _fixed(self, quality: int, distance: float) -> float:
        now = math.log(quality)
        return self.bias + self.distance * distance + self.now * now + self.both * now * distance


MODEL = QualityModel()


def advise(
    reasons: Iterable[Reason],
    utility: float,
    thresholds: Thresholds,
    *,
    quality: int | None,
    blocks: float,
    side: int,
    wanted_side: int,
    model: QualityModel = MODEL,
) -> tuple[Advice, ...]:
    """What to do about an image, most promising first; nothing if it is useful.

    Args:
        reasons: what was measured of it.
        utility: predicted, 0 to 1.
        thresholds: what makes it useful.
        quality: its JPEG quality, estimated, 1-100; None if it is no JPEG.
        blocks: how far blocks stand out of it (`measure.blocking`).
        side: its shorter side, pixels.
        wanted_side: the shorter side that the predictor resizes to, pixels; smaller images are
            enlarged, and lose: on held-out ImageNet photographs that are useful at full size 97 %
            are at 224 pixels, 68 % at 128, 46 % at 64 (`tools/fit_quality_advice.py`).
        model: what higher qualities are likely to do.
    """
    if utility >= thresholds.useful:
        return ()
    found = {reason.kind: reason for reason in reasons}
    given: list[Advice] = []
    if ReasonKind.TOO_SMALL in found:
        wanted_side = max(wanted_side, math.ceil(found[ReasonKind.TOO_SMALL].threshold))
    if side < wanted_side:
        given.append(_larger(side, wanted_side))
    if quality is not None and quality < HIGHEST:
        given += _higher(quality, _distance(utility, thresholds), found, model)
    if blocks > _BLOCKED and (quality is None or quality >= _FINE):
        given.append(_ORIGINAL)
    given += [
        Advice(kind, found[reason].threshold, text)
        for reason, (kind, text) in _BY_REASON.items()
        if reason in found
    ]
    return tuple(given) or (_ANOTHER,)


def advise_on(
    image: DecodedImage,
    reasons: Iterable[Reason],
    utility: float,
    thresholds: Thresholds,
    wanted_side: int,
) -> tuple[Advice, ...]:
    """`advise` on a decoded image, of which only what is needed is measured."""
    if utility >= thresholds.useful:
        return ()
    table = image.luma_quantization
    quality = None if table is None else estimate_jpeg_quality(table)
    return advise(
        reasons,
        utility,
        thresholds,
        quality=quality,
        blocks=blocking(image) if quality is None or quality >= _FINE else 0.0,
        side=min(image.width, image.height),
        wanted_side=wanted_side,
    )


_BY_REASON = {
    ReasonKind.TOO_DARK: (
        AdviceKind.BRIGHTER, "send a brighter photograph: more light, or a longer exposure"),
    ReasonKind.TOO_BRIGHT: (
        AdviceKind.DARKER, "send a darker photograph: less light, or a shorter exposure"),
    ReasonKind.LOW_CONTRAST: (
        AdviceKind.MORE_CONTRAST, "send a photograph with more contrast: no haze, no flat light"),
    ReasonKind.BLURRED: (
        AdviceKind.SHARPER, "send a sharper photograph: in focus, and held still"),
}  # fmt: skip

_ORIGINAL = Advice(
    AdviceKind.ORIGINAL_FILE,
    None,
    "send the file as the camera wrote it: this one was compressed more than it says",
)

_ANOTHER = Advice(
    AdviceKind.ANOTHER_PHOTOGRAPH,
    None,
    "send another photograph, nearer or from another side: nothing measurable is wrong with this "
    "one",
)


def _larger(side: int, wanted: int) -> Advice:
    text = f"send it with a shorter side of {wanted} pixels or more: this one has {side}"
    return Advice(AdviceKind.LARGER, float(wanted), text)


def _higher(
    quality: int, distance: float, found: Iterable[ReasonKind], model: QualityModel
) -> list[Advice]:
    likely = model.chance(quality, distance, HIGHEST) >= model.least
    if not likely and ReasonKind.LOW_JPEG_QUALITY not in found:
        return []
    wanted = model.reach(quality, distance)
    text = f"send it at JPEG quality {wanted} or higher: this one has about {quality}"
    return [Advice(AdviceKind.HIGHER_QUALITY, float(wanted), text)]


def _distance(utility: float, thresholds: Thresholds) -> float:
    """From the useful threshold, in logits, no further than -6."""
    return max(-6.0, _logit(utility) - _logit(thresholds.useful))


def _logit(probability: float) -> float:
    inside = min(max(probability, 1e-6), 1 - 1e-6)
    return math.log(inside / (1 - inside))
