"""Answers on cars as messages, and nothing else."""

from __future__ import annotations

from pipelines.car_model.answer import Candidate
from pipelines.car_model.names import split_name
from pipelines.car_model.pipeline import CarAnswer, CarModelPipeline, FoundCar
from pipelines.embedded import CLASSIFIER, DETECTOR
from pipelines.v1 import car_model_pb2 as pb
from pipelines.wire import from_box, from_image, from_limits, from_model
from utility_gate import __version__
from utility_gate.images import DecodeLimits


def from_answer(answer: CarAnswer, top_k: int) -> pb.IdentifyResponse:
    """What can be told of one photograph, with `top_k` candidates."""
    told = answer.identification
    make, probability = told.make
    return pb.IdentifyResponse(
        level=f"LEVEL_{told.level}",
        text=told.text,
        make=make,
        make_probability=probability,
        candidates=[from_candidate(candidate) for candidate in told.candidates[:top_k]],
        no_car_probability=told.no_car,
        image=from_image(answer.image),
        classifier=from_model(answer.classifier),
        overlay_png=answer.overlay,
        car=from_found(answer.car) if answer.car else None,
        cars=answer.cars,
        detector=from_model(answer.detector) if answer.detector else None,
    )


def from_found(car: FoundCar) -> pb.FoundCar:
    """Where a car is."""
    return pb.FoundCar(box=from_box(car.box), score=car.score, crop=from_box(car.crop))


def from_candidate(candidate: Candidate) -> pb.Candidate:
    """One model that it may be."""
    return pb.Candidate(
        name=candidate.name,
        make=candidate.car.make,
        model=candidate.car.model,
        year=candidate.car.year,
        probability=candidate.probability,
    )


def from_pipeline(
    pipeline: CarModelPipeline, limits: DecodeLimits
) -> pb.CarModelServiceGetInfoResponse:
    """What is served."""
    detector = pipeline.models.get(DETECTOR)
    return pb.CarModelServiceGetInfoResponse(
        server_version=__version__,
        classifier=from_model(pipeline.models[CLASSIFIER]),
        models=pipeline.classes,
        makes=sorted({split_name(name).make for name in pipeline.classes}),
        model_from=pipeline.thresholds.model_from,
        make_from=pipeline.thresholds.make_from,
        limits=from_limits(limits),
        detector=from_model(detector) if detector else None,
    )
