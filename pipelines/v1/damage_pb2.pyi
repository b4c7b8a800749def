from pipelines.v1 import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Outcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OUTCOME_UNSPECIFIED: _ClassVar[Outcome]
    OUTCOME_DAMAGED: _ClassVar[Outcome]
    OUTCOME_NO_REGION: _ClassVar[Outcome]
    OUTCOME_NO_CAR: _ClassVar[Outcome]
OUTCOME_UNSPECIFIED: Outcome
OUTCOME_DAMAGED: Outcome
OUTCOME_NO_REGION: Outcome
OUTCOME_NO_CAR: Outcome

class Region(_message.Message):
    __slots__ = ("box", "score", "detector_class", "heads", "crop")
    BOX_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    DETECTOR_CLASS_FIELD_NUMBER: _ClassVar[int]
    HEADS_FIELD_NUMBER: _ClassVar[int]
    CROP_FIELD_NUMBER: _ClassVar[int]
    box: _common_pb2.Box
    score: float
    detector_class: str
    heads: _containers.RepeatedCompositeFieldContainer[_common_pb2.HeadAnswer]
    crop: _common_pb2.Box
    def __init__(self, box: _Optional[_Union[_common_pb2.Box, _Mapping]] = ..., score: _Optional[float] = ..., detector_class: _Optional[str] = ..., heads: _Optional[_Iterable[_Union[_common_pb2.HeadAnswer, _Mapping]]] = ..., crop: _Optional[_Union[_common_pb2.Box, _Mapping]] = ...) -> None: ...

class AssessRequest(_message.Message):
    __slots__ = ("image", "with_maps")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    WITH_MAPS_FIELD_NUMBER: _ClassVar[int]
    image: bytes
    with_maps: bool
    def __init__(self, image: _Optional[bytes] = ..., with_maps: bool = ...) -> None: ...

class AssessResponse(_message.Message):
    __slots__ = ("outcome", "text", "regions", "whole", "image", "detector", "classifier")
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    REGIONS_FIELD_NUMBER: _ClassVar[int]
    WHOLE_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    DETECTOR_FIELD_NUMBER: _ClassVar[int]
    CLASSIFIER_FIELD_NUMBER: _ClassVar[int]
    outcome: Outcome
    text: str
    regions: _containers.RepeatedCompositeFieldContainer[Region]
    whole: _containers.RepeatedCompositeFieldContainer[_common_pb2.HeadAnswer]
    image: _common_pb2.ImageInfo
    detector: _common_pb2.ModelInfo
    classifier: _common_pb2.ModelInfo
    def __init__(self, outcome: _Optional[_Union[Outcome, str]] = ..., text: _Optional[str] = ..., regions: _Optional[_Iterable[_Union[Region, _Mapping]]] = ..., whole: _Optional[_Iterable[_Union[_common_pb2.HeadAnswer, _Mapping]]] = ..., image: _Optional[_Union[_common_pb2.ImageInfo, _Mapping]] = ..., detector: _Optional[_Union[_common_pb2.ModelInfo, _Mapping]] = ..., classifier: _Optional[_Union[_common_pb2.ModelInfo, _Mapping]] = ...) -> None: ...

class DamageServiceGetInfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DamageServiceGetInfoResponse(_message.Message):
    __slots__ = ("server_version", "detector", "detector_classes", "classifier", "heads", "limits")
    SERVER_VERSION_FIELD_NUMBER: _ClassVar[int]
    DETECTOR_FIELD_NUMBER: _ClassVar[int]
    DETECTOR_CLASSES_FIELD_NUMBER: _ClassVar[int]
    CLASSIFIER_FIELD_NUMBER: _ClassVar[int]
    HEADS_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    server_version: str
    detector: _common_pb2.ModelInfo
    detector_classes: _containers.RepeatedScalarFieldContainer[str]
    classifier: _common_pb2.ModelInfo
    heads: _containers.RepeatedCompositeFieldContainer[_common_pb2.HeadInfo]
    limits: _common_pb2.Limits
    def __init__(self, server_version: _Optional[str] = ..., detector: _Optional[_Union[_common_pb2.ModelInfo, _Mapping]] = ..., detector_classes: _Optional[_Iterable[str]] = ..., classifier: _Optional[_Union[_common_pb2.ModelInfo, _Mapping]] = ..., heads: _Optional[_Iterable[_Union[_common_pb2.HeadInfo, _Mapping]]] = ..., limits: _Optional[_Union[_common_pb2.Limits, _Mapping]] = ...) -> None: ...
