"""What both pipelines answer, as messages, and nothing else."""

from __future__ import annotations

from pipelines.answers import HeadAnswer
from pipelines.card import HeadCard
from pipelines.photos import SMALLEST_SIDE
from pipelines.v1 import common_pb2 as pb
from utility_gate.images import FORMATS, DecodeLimits
from utility_gate.types import ImageInfo, PredictorInfo


def from_image(image: ImageInfo) -> pb.ImageInfo:
    """What was decoded."""
    return pb.ImageInfo(
        format=f"IMAGE_FORMAT_{image.format}", width=image.width, height=image.height
    )


def from_model(model: PredictorInfo) -> pb.ModelInfo:
    """A network's identity."""
    return pb.ModelInfo(name=model.name, version=model.version, digest=model.digest)


def from_box(box: tuple[float, float, float, float]) -> pb.Box:
    """A box, xyxy."""
    left, top, right, bottom = box
    return pb.Box(left=left, top=top, right=right, bottom=bottom)


def from_head_answer(answer: HeadAnswer) -> pb.HeadAnswer:
    """What one head says."""
    return pb.HeadAnswer(
        head=answer.head,
        classes=[pb.ClassScore(name=name, probability=p) for name, p in answer.classes],
        multi_label=answer.multi_label,
        overlay_png=answer.overlay,
    )


def from_head(card: HeadCard) -> pb.HeadInfo:
    """A question and its possible answers."""
    return pb.HeadInfo(head=card.name, classes=card.classes, multi_label=card.multi_label)


def from_limits(limits: DecodeLimits) -> pb.Limits:
    """What is refused."""
    return pb.Limits(
        max_image_bytes=limits.max_bytes,
        max_image_pixels=limits.max_pixels,
        min_image_side=SMALLEST_SIDE,
        formats=[f"IMAGE_FORMAT_{name}" for name in FORMATS],
    )
