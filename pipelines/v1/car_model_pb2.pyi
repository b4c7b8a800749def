from pipelines.v1 import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Level(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LEVEL_UNSPECIFIED: _ClassVar[Level]
    LEVEL_MODEL: _ClassVar[Level]
    LEVEL_MAKE: _ClassVar[Level]
    LEVEL_UNSURE: _ClassVar[Level]
    LEVEL_NO_CAR: _ClassVar[Level]
LEVEL_UNSPECIFIED: Level
LEVEL_MODEL: Level
LEVEL_MAKE: Level
LEVEL_UNSURE: Level
LEVEL_NO_CAR: Level

class Candidate(_message.Message):
    __slots__ = ("name", "make", "model", "year", "probability")
    NAME_FIELD_NUMBER: _ClassVar[int]
    MAKE_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    YEAR_FIELD_NUMBER: _ClassVar[int]
    PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    name: str
    make: str
    model: str
    year: int
    probability: float
    def __init__(self, name: _Optional[str] = ..., make: _Optional[str] = ..., model: _Optional[str] = ..., year: _Optional[int] = ..., probability: _Optional[float] = ...) -> None: ...

class FoundCar(_message.Message):
    __slots__ = ("box", "score", "crop")
    BOX_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    CROP_FIELD_NUMBER: _ClassVar[int]
    box: _common_pb2.Box
    score: float
    crop: _common_pb2.Box
    def __init__(self, box: _Optional[_Union[_common_pb2.Box, _Mapping]] = ..., score: _Optional[float] = ..., crop: _Optional[_Union[_common_pb2.Box, _Mapping]] = ...) -> None: ...

class IdentifyRequest(_message.Message):
    __slots__ = ("image", "top_k", "with_maps")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    WITH_MAPS_FIELD_NUMBER: _ClassVar[int]
    image: bytes
    top_k: int
    with_maps: bool
    def __init__(self, image: _Optional[bytes] = ..., top_k: _Optional[int] = ..., with_maps: bool = ...) -> None: ...

class IdentifyResponse(_message.Message):
    __slots__ = ("level", "text", "make", "make_probability", "candidates", "no_car_probability", "image", "classifier", "overlay_png", "car", "cars", "detector")
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    MAKE_FIELD_NUMBER: _ClassVar[int]
    MAKE_PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    CANDIDATES_FIELD_NUMBER: _ClassVar[int]
    NO_CAR_PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    CLASSIFIER_FIELD_NUMBER: _ClassVar[int]
    OVERLAY_PNG_FIELD_NUMBER: _ClassVar[int]
    CAR_FIELD_NUMBER: _ClassVar[int]
    CARS_FIELD_NUMBER: _ClassVar[int]
    DETECTOR_FIELD_NUMBER: _ClassVar[int]
    level: Level
    text: str
    make: str
    make_probability: float
    candidates: _containers.RepeatedCompositeFieldContainer[Candidate]
    no_car_probability: float
    image: _common_pb2.ImageInfo
    classifier: _common_pb2.ModelInfo
    overlay_png: bytes
    car: FoundCar
    cars: int
    detector: _common_pb2.ModelInfo
    def __init__(self, level: _Optional[_Union[Level, str]] = ..., text: _Optional[str] = ..., make: _Optional[str] = ..., make_probability: _Optional[float] = ..., candidates: _Optional[_Iterable[_Union[Candidate, _Mapping]]] = ..., no_car_probability: _Optional[float] = ..., image: _Optional[_Union[_common_pb2.ImageInfo, _Mapping]] = ..., classifier: _Optional[_Union[_common_pb2.ModelInfo, _Mapping]] = ..., overlay_png: _Optional[bytes] = ..., car: _Optional[_Union[FoundCar, _Mapping]] = ..., cars: _Optional[int] = ..., detector: _Optional[_Union[_common_pb2.ModelInfo, _Mapping]] = ...) -> None: ...

class CarModelServiceGetInfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CarModelServiceGetInfoResponse(_message.Message):
    __slots__ = ("server_version", "classifier", "models", "makes", "model_from", "make_from", "limits", "detector")
    SERVER_VERSION_FIELD_NUMBER: _ClassVar[int]
    CLASSIFIER_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    MAKES_FIELD_NUMBER: _ClassVar[int]
    MODEL_FROM_FIELD_NUMBER: _ClassVar[int]
    MAKE_FROM_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    DETECTOR_FIELD_NUMBER: _ClassVar[int]
    server_version: str
    classifier: _common_pb2.ModelInfo
    models: _containers.RepeatedScalarFieldContainer[str]
    makes: _containers.RepeatedScalarFieldContainer[str]
    model_from: float
    make_from: float
    limits: _common_pb2.Limits
    detector: _common_pb2.ModelInfo
    def __init__(self, server_version: _Optional[str] = ..., classifier: _Optional[_Union[_common_pb2.ModelInfo, _Mapping]] = ..., models: _Optional[_Iterable[str]] = ..., makes: _Optional[_Iterable[str]] = ..., model_from: _Optional[float] = ..., make_from: _Optional[float] = ..., limits: _Optional[_Union[_common_pb2.Limits, _Mapping]] = ..., detector: _Optional[_Union[_common_pb2.ModelInfo, _Mapping]] = ...) -> None: ...
