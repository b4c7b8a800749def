"""The values that pass between the rooms: frozen, and validated when they are made."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from typing import Any


class Decision(enum.StrEnum):
    """What to do with an image."""

    USEFUL = "USEFUL"
    REVIEW = "REVIEW"
    NON_USEFUL = "NON_USEFUL"


class Mode(enum.StrEnum):
    """How a task's verdicts are used."""

    ENFORCE = "ENFORCE"  # the decision is the judgement
    SHADOW = "SHADOW"  # judged, and let through whatever the judgement
    OFF = "OFF"  # let through unseen
    FALLBACK = "FALLBACK"  # the gate was in trouble; let through unjudged


class ReasonKind(enum.StrEnum):
    """What is wrong with an image; `Reason.value` is in the unit named here."""

    LOW_UTILITY = "LOW_UTILITY"  # predicted utility, 0-1
    LOW_JPEG_QUALITY = "LOW_JPEG_QUALITY"  # estimated libjpeg quality, 1-100
    TOO_SMALL = "TOO_SMALL"  # shorter side, pixels
    BLURRED = "BLURRED"  # variance of the Laplacian of luma, luma levels squared
    TOO_DARK = "TOO_DARK"  # mean luma, 0-255
    TOO_BRIGHT = "TOO_BRIGHT"  # mean luma, 0-255
    LOW_CONTRAST = "LOW_CONTRAST"  # standard deviation of luma, 0-127.5


class AdviceKind(enum.StrEnum):
    """What to do about an image that is not useful; `Advice.value` is in the unit named here."""

    HIGHER_QUALITY = "HIGHER_QUALITY"  # libjpeg quality to send it at or above, 1-100
    ORIGINAL_FILE = "ORIGINAL_FILE"  # the file as the camera wrote it; no value
    LARGER = "LARGER"  # shorter side, pixels, at least
    SHARPER = "SHARPER"  # variance of the Laplacian of luma, luma levels squared, at least
    BRIGHTER = "BRIGHTER"  # mean luma, 0-255, at least
    DARKER = "DARKER"  # mean luma, 0-255, at most
    MORE_CONTRAST = "MORE_CONTRAST"  # standard deviation of luma, 0-127.5, at least
    ANOTHER_PHOTOGRAPH = "ANOTHER_PHOTOGRAPH"  # of the same thing; no value


def _require(ok: bool, expected: str, got: object) -> None:
    if not ok:
        raise ValueError(f"expected {expected}, got {got!r}")


def is_probability(value: float) -> bool:
    """Whether `value` is a finite number in [0, 1]."""
    return math.isfinite(value) and 0.0 <= value <= 1.0


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Where the decision changes: USEFUL at `useful` and above, NON_USEFUL below `review`.

    Between the two lies REVIEW; the band is empty when both are equal.

    Raises:
        ValueError: unless 0 <= review <= useful <= 1.
    """

    useful: float
    review: float

    def __post_init__(self) -> None:
        _require(is_probability(self.useful), "useful threshold in [0, 1]", self.useful)
        _require(is_probability(self.review), "review threshold in [0, 1]", self.review)
        _require(
            self.review <= self.useful, "review <= useful threshold", (self.review, self.useful)
        )

    def decide(self, utility: float) -> Decision:
        """The decision that these thresholds make of a utility in [0, 1]."""
        if utility >= self.useful:
            return Decision.USEFUL
        return Decision.REVIEW if utility >= self.review else Decision.NON_USEFUL


@dataclass(frozen=True, slots=True)
class Reason:
    """One thing that is wrong: a measured `value` on the bad side of `threshold`."""

    kind: ReasonKind
    value: float
    threshold: float
    message: str

    def __post_init__(self) -> None:
        _require(math.isfinite(self.value), "finite reason value", self.value)
        _require(math.isfinite(self.threshold), "finite reason threshold", self.threshold)


@dataclass(frozen=True, slots=True)
class Advice:
    """One thing to do about an image that is not useful: `value` is what to reach, None where
    there is nothing to be measured; `message` says it as an English sentence."""

    kind: AdviceKind
    value: float | None
    message: str

    def __post_init__(self) -> None:
        _require(self.value is None or math.isfinite(self.value), "finite advice value", self.value)


@dataclass(frozen=True, slots=True)
class PredictorInfo:
    """Which predictor judged: its name, its version, and the SHA-256 (hex) of its weights."""

    name: str
    version: str
    digest: str


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """What was decoded: `format` is JPEG, PNG or WEBP; sides in pixels as displayed
    (EXIF rotation applied, before any scaling)."""

    format: str
    width: int
    height: int

    def __post_init__(self) -> None:
        _require(
            self.width > 0 and self.height > 0, "positive image sides", (self.width, self.height)
        )


@dataclass(frozen=True, slots=True)
class Verdict:
    """The gate's answer on one image.

    `utility` is a calibrated probability in [0, 1]: that the image is useful (networks decide
    on it correctly and surely) rather than non-useful (they err), if it is one of the two and
    both are equally likely beforehand. `decision` is what to do; in mode ENFORCE it is the
    `judgement`, which follows from utility and thresholds alone, in any other it is USEFUL.

    An image that was not judged (modes OFF and FALLBACK) has no utility, no image and perhaps no
    thresholds and predictor; `note` says why. `advice` is what to do about one whose judgement is
    not USEFUL, most promising first.

    Raises:
        ValueError: if utility is out of range or the decision does not follow.
    """

    task: str
    utility: float | None
    decision: Decision
    thresholds: Thresholds | None
    reasons: tuple[Reason, ...]
    predictor: PredictorInfo | None
    image: ImageInfo | None
    mode: Mode = Mode.ENFORCE
    note: str = ""
    advice: tuple[Advice, ...] = ()

    def __post_init__(self) -> None:
        judged = self.mode in (Mode.ENFORCE, Mode.SHADOW)
        whole = None not in (self.utility, self.thresholds, self.predictor, self.image)
        if judged:
            _require(bool(self.task), "a task name", self.task)
            _require(whole, f"utility, thresholds, predictor and image in mode {self.mode}", None)
            _require(is_probability(self.utility or 0.0), "utility in [0, 1]", self.utility)
        else:
            _require(self.utility is None, f"no utility in mode {self.mode}", self.utility)
        decided = self.judgement if self.mode is Mode.ENFORCE else Decision.USEFUL
        _require(self.decision is decided, f"decision {decided}", self.decision)

    @property
    def judgement(self) -> Decision | None:
        """What utility and thresholds say; None if the image was not judged."""
        if self.utility is None or self.thresholds is None:
            return None
        return self.thresholds.decide(self.utility)


@dataclass(frozen=True, slots=True)
class Rung:
    """One image compressed at libjpeg `quality` (1-100): its predicted utility, and its bytes."""

    quality: int
    utility: float
    size: int

    def __post_init__(self) -> None:
        _require(1 <= self.quality <= 100, "quality in 1..100", self.quality)
        _require(is_probability(self.utility), "utility in [0, 1]", self.utility)
        _require(self.size > 0, "a size in bytes", self.size)


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggestion:
    """How far one image can be compressed and stay USEFUL.

    `chosen` is the lowest quality from which on every quality that was tried is at or above the
    useful threshold; None if there is none, and `advice` says then what to do. `curve` holds all
    that was tried, highest quality first. `size` (bytes) and `utility` are the image's own, as it
    came; None if it came as pixels. `width` x `height` pixels is what was compressed (upright,
    scaled if that was asked for).

    Raises:
        ValueError: if the curve is not in order, or what is chosen is not on it or not useful.
    """

    task: str
    thresholds: Thresholds
    predictor: PredictorInfo
    size: int | None
    utility: float | None
    width: int
    height: int
    chosen: Rung | None
    curve: tuple[Rung, ...]
    advice: tuple[Advice, ...] = ()

    def __post_init__(self) -> None:
        qualities = [rung.quality for rung in self.curve]
        falling = sorted(set(qualities), reverse=True)
        _require(qualities == falling, "distinct qualities, highest first", qualities)
        known = (self.size is None) == (self.utility is None)
        _require(known, "size and utility of the image, or neither", (self.size, self.utility))
        _require(is_probability(self.utility or 0.0), "utility in [0, 1]", self.utility)
        _require(self.size is None or self.size > 0, "a size in bytes", self.size)
        _require(
            self.width > 0 and self.height > 0, "positive image sides", (self.width, self.height)
        )
        if self.chosen is not None:
            _require(self.chosen in self.curve, "a choice on the curve", self.chosen)
            useful = self.chosen.utility >= self.thresholds.useful
            _require(useful, f"utility from {self.thresholds.useful}", self.chosen.utility)

    @property
    def saved(self) -> int | None:
        """Bytes that the choice is smaller than the image as it came; negative if it is larger,
        None if either is not there."""
        if self.chosen is None or self.size is None:
            return None
        return self.size - self.chosen.size

    def saved_against(self, quality: int) -> int | None:
        """The same against the image compressed at `quality`; None if that was not tried."""
        others = [rung.size for rung in self.curve if rung.quality == quality]
        return others[0] - self.chosen.size if others and self.chosen is not None else None


@dataclass(frozen=True, slots=True)
class TaskInfo:
    """One task that a gate serves, with the thresholds and predictor that stand behind it."""

    name: str
    thresholds: Thresholds
    predictor: PredictorInfo
    mode: Mode = Mode.ENFORCE


@dataclass(frozen=True, slots=True)
class GateInfo:
    """What a gate can do: its tasks (the default one first) and its limits per image."""

    server_version: str
    tasks: tuple[TaskInfo, ...]
    max_image_bytes: int
    max_image_pixels: int
    formats: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """One image as networks see it: a source, augmented or not, degraded or not.

    `augmentation` is the name of what was done to the source first (`utility_gate.augment`), ""
    for nothing. `degradation` and `parameters` (canonical JSON) say how the copy was made
    (`utility_gate.degrade`); "none" and "{}" stand for the pristine image. `quality` is the JPEG
    quality of the last compression, None where that was no JPEG. Digests are SHA-256 in hex: of
    the source file and of the copy's bytes (of the pixels for an augmented, undegraded source,
    which has no file).
    """

    source: str
    source_digest: str
    augmentation: str = ""
    degradation: str
    parameters: str
    quality: int | None
    image_digest: str

    @property
    def key(self) -> str:
        """What a random degradation draws by: the same for all copies of one (augmented) source."""
        return self.source_digest + self.augmentation

    def fields(self) -> dict[str, Any]:
        """A copy's own fields by name, for values that extend it."""
        return {name: getattr(self, name) for name in Copy.__dataclass_fields__}


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation(Copy):
    """What one classifier said about one copy.

    `ccsp` is the softmax probability of the true class, `top1` that of the predicted one, both
    in [0, 1]; `network_digest` is the SHA-256 of its weights.
    """

    network: str
    network_digest: str
    true_class: int
    predicted_class: int
    top1: float
    ccsp: float

    def __post_init__(self) -> None:
        _require(is_probability(self.top1), "top1 in [0, 1]", self.top1)
        _require(is_probability(self.ccsp), "ccsp in [0, 1]", self.ccsp)

    @property
    def correct(self) -> bool:
        """Whether the predicted class is the true one."""
        return self.predicted_class == self.true_class


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectionObservation(Copy):
    """What one detector said about one copy; lists run over its detections, surest first.

    `boxes` are xyxy in pixels of the source, upright, wherever the copy shows them; `scores` are
    in [0, 1], `classes` in the network's own numbering. `objects` holds for each detection the
    number of the reference object of its class that it overlaps most, -1 if it overlaps none;
    `ious` that overlap, 0 to 1. `reference_objects` counts the objects there were to be found.
    """

    network: str
    network_digest: str
    reference_objects: int
    boxes: list[list[float]]
    classes: list[int]
    scores: list[float]
    objects: list[int]
    ious: list[float]

    def __post_init__(self) -> None:
        lengths = {len(x) for x in (self.boxes, self.classes, self.scores, self.objects, self.ious)}
        _require(len(lengths) == 1, "lists of one length", lengths)
        _require(all(map(is_probability, self.scores)), "scores in [0, 1]", self.scores)
        _require(all(map(is_probability, self.ious)), "ious in [0, 1]", self.ious)


@dataclass(frozen=True, slots=True, kw_only=True)
class Label(Copy):
    """The ensemble's word on one degraded copy: 1 useful, 0 non-useful, None undecided.

    `utility` is the mean of Eq. 2 over the networks that can judge the copy, None if none can.
    `split` is "train" or "test", the same for all copies of a source, augmented or not.
    """

    split: str
    label: int | None
    utility: float | None
    useful_votes: int
    non_useful_votes: int
    networks: int

    def __post_init__(self) -> None:
        _require(self.label in (0, 1, None), "label 0, 1 or None", self.label)
        _require(self.split in ("train", "test"), "split train or test", self.split)
