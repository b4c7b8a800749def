"""Assessments as messages, and nothing else."""

from __future__ import annotations

from pipelines.damage.pipeline import Assessment, DamagePipeline, Region
from pipelines.embedded import CLASSIFIER, DETECTOR
from pipelines.v1 import damage_pb2 as pb
from pipelines.wire import (
    from_box,
    from_head,
    from_head_answer,
    from_image,
    from_limits,
    from_model,
)
from utility_gate import __version__
from utility_gate.images import DecodeLimits


def from_assessment(assessment: Assessment) -> pb.AssessResponse:
    """What was found on one photograph."""
    return pb.AssessResponse(
        outcome=f"OUTCOME_{assessment.outcome}",
        text=assessment.text,
        regions=[from_region(region) for region in assessment.regions],
        whole=[from_head_answer(answer) for answer in assessment.whole],
        image=from_image(assessment.image),
        detector=from_model(assessment.detector),
        classifier=from_model(assessment.classifier),
    )


def from_region(region: Region) -> pb.Region:
    """One damaged region."""
    return pb.Region(
        box=from_box(region.box),
        score=region.score,
        detector_class=region.label,
        heads=[from_head_answer(answer) for answer in region.heads],
        crop=from_box(region.crop),
    )


def from_pipeline(
    pipeline: DamagePipeline, limits: DecodeLimits
) -> pb.DamageServiceGetInfoResponse:
    """What is served."""
    return pb.DamageServiceGetInfoResponse(
        server_version=__version__,
        detector=from_model(pipeline.models[DETECTOR]),
        detector_classes=pipeline.detector.card.classes,
        classifier=from_model(pipeline.models[CLASSIFIER]),
        heads=[from_head(head) for head in pipeline.classifier.card.heads],
        limits=from_limits(limits),
    )
