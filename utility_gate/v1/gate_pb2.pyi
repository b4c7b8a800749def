from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Decision(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DECISION_UNSPECIFIED: _ClassVar[Decision]
    DECISION_USEFUL: _ClassVar[Decision]
    DECISION_REVIEW: _ClassVar[Decision]
    DECISION_NON_USEFUL: _ClassVar[Decision]

class Mode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MODE_UNSPECIFIED: _ClassVar[Mode]
    MODE_ENFORCE: _ClassVar[Mode]
    MODE_SHADOW: _ClassVar[Mode]
    MODE_OFF: _ClassVar[Mode]
    MODE_FALLBACK: _ClassVar[Mode]

class ReasonKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REASON_KIND_UNSPECIFIED: _ClassVar[ReasonKind]
    REASON_KIND_LOW_UTILITY: _ClassVar[ReasonKind]
    REASON_KIND_LOW_JPEG_QUALITY: _ClassVar[ReasonKind]
    REASON_KIND_TOO_SMALL: _ClassVar[ReasonKind]
    REASON_KIND_BLURRED: _ClassVar[ReasonKind]
    REASON_KIND_TOO_DARK: _ClassVar[ReasonKind]
    REASON_KIND_TOO_BRIGHT: _ClassVar[ReasonKind]
    REASON_KIND_LOW_CONTRAST: _ClassVar[ReasonKind]

class AdviceKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ADVICE_KIND_UNSPECIFIED: _ClassVar[AdviceKind]
    ADVICE_KIND_HIGHER_QUALITY: _ClassVar[AdviceKind]
    ADVICE_KIND_ORIGINAL_FILE: _ClassVar[AdviceKind]
    ADVICE_KIND_LARGER: _ClassVar[AdviceKind]
    ADVICE_KIND_SHARPER: _ClassVar[AdviceKind]
    ADVICE_KIND_BRIGHTER: _ClassVar[AdviceKind]
    ADVICE_KIND_DARKER: _ClassVar[AdviceKind]
    ADVICE_KIND_MORE_CONTRAST: _ClassVar[AdviceKind]
    ADVICE_KIND_ANOTHER_PHOTOGRAPH: _ClassVar[AdviceKind]

class ImageFormat(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    IMAGE_FORMAT_UNSPECIFIED: _ClassVar[ImageFormat]
    IMAGE_FORMAT_JPEG: _ClassVar[ImageFormat]
    IMAGE_FORMAT_PNG: _ClassVar[ImageFormat]
    IMAGE_FORMAT_WEBP: _ClassVar[ImageFormat]
DECISION_UNSPECIFIED: Decision
DECISION_USEFUL: Decision
DECISION_REVIEW: Decision
DECISION_NON_USEFUL: Decision
MODE_UNSPECIFIED: Mode
MODE_ENFORCE: Mode
MODE_SHADOW: Mode
MODE_OFF: Mode
MODE_FALLBACK: Mode
REASON_KIND_UNSPECIFIED: ReasonKind
REASON_KIND_LOW_UTILITY: ReasonKind
REASON_KIND_LOW_JPEG_QUALITY: ReasonKind
REASON_KIND_TOO_SMALL: ReasonKind
REASON_KIND_BLURRED: ReasonKind
REASON_KIND_TOO_DARK: ReasonKind
REASON_KIND_TOO_BRIGHT: ReasonKind
REASON_KIND_LOW_CONTRAST: ReasonKind
ADVICE_KIND_UNSPECIFIED: AdviceKind
ADVICE_KIND_HIGHER_QUALITY: AdviceKind
ADVICE_KIND_ORIGINAL_FILE: AdviceKind
ADVICE_KIND_LARGER: AdviceKind
ADVICE_KIND_SHARPER: AdviceKind
ADVICE_KIND_BRIGHTER: AdviceKind
ADVICE_KIND_DARKER: AdviceKind
ADVICE_KIND_MORE_CONTRAST: AdviceKind
ADVICE_KIND_ANOTHER_PHOTOGRAPH: AdviceKind
IMAGE_FORMAT_UNSPECIFIED: ImageFormat
IMAGE_FORMAT_JPEG: ImageFormat
IMAGE_FORMAT_PNG: ImageFormat
IMAGE_FORMAT_WEBP: ImageFormat

class Thresholds(_message.Message):
    __slots__ = ("useful", "review")
    USEFUL_FIELD_NUMBER: _ClassVar[int]
    REVIEW_FIELD_NUMBER: _ClassVar[int]
    useful: float
    review: float
    def __init__(self, useful: _Optional[float] = ..., review: _Optional[float] = ...) -> None: ...

class Reason(_message.Message):
    __slots__ = ("kind", "value", "threshold", "message")
    KIND_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    kind: ReasonKind
    value: float
    threshold: float
    message: str
    def __init__(self, kind: _Optional[_Union[ReasonKind, str]] = ..., value: _Optional[float] = ..., threshold: _Optional[float] = ..., message: _Optional[str] = ...) -> None: ...

class Advice(_message.Message):
    __slots__ = ("kind", "value", "message")
    KIND_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    kind: AdviceKind
    value: float
    message: str
    def __init__(self, kind: _Optional[_Union[AdviceKind, str]] = ..., value: _Optional[float] = ..., message: _Optional[str] = ...) -> None: ...

class PredictorInfo(_message.Message):
    __slots__ = ("name", "version", "digest")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    digest: str
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ..., digest: _Optional[str] = ...) -> None: ...

class ImageInfo(_message.Message):
    __slots__ = ("format", "width", "height")
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    format: ImageFormat
    width: int
    height: int
    def __init__(self, format: _Optional[_Union[ImageFormat, str]] = ..., width: _Optional[int] = ..., height: _Optional[int] = ...) -> None: ...

class Verdict(_message.Message):
    __slots__ = ("task", "utility", "decision", "thresholds", "reasons", "predictor", "image", "mode", "judgement", "note", "advice")
    TASK_FIELD_NUMBER: _ClassVar[int]
    UTILITY_FIELD_NUMBER: _ClassVar[int]
    DECISION_FIELD_NUMBER: _ClassVar[int]
    THRESHOLDS_FIELD_NUMBER: _ClassVar[int]
    REASONS_FIELD_NUMBER: _ClassVar[int]
    PREDICTOR_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    JUDGEMENT_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    ADVICE_FIELD_NUMBER: _ClassVar[int]
    task: str
    utility: float
    decision: Decision
    thresholds: Thresholds
    reasons: _containers.RepeatedCompositeFieldContainer[Reason]
    predictor: PredictorInfo
    image: ImageInfo
    mode: Mode
    judgement: Decision
    note: str
    advice: _containers.RepeatedCompositeFieldContainer[Advice]
    def __init__(self, task: _Optional[str] = ..., utility: _Optional[float] = ..., decision: _Optional[_Union[Decision, str]] = ..., thresholds: _Optional[_Union[Thresholds, _Mapping]] = ..., reasons: _Optional[_Iterable[_Union[Reason, _Mapping]]] = ..., predictor: _Optional[_Union[PredictorInfo, _Mapping]] = ..., image: _Optional[_Union[ImageInfo, _Mapping]] = ..., mode: _Optional[_Union[Mode, str]] = ..., judgement: _Optional[_Union[Decision, str]] = ..., note: _Optional[str] = ..., advice: _Optional[_Iterable[_Union[Advice, _Mapping]]] = ...) -> None: ...

class AssessRequest(_message.Message):
    __slots__ = ("image", "task")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    image: bytes
    task: str
    def __init__(self, image: _Optional[bytes] = ..., task: _Optional[str] = ...) -> None: ...

class AssessResponse(_message.Message):
    __slots__ = ("verdict",)
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    verdict: Verdict
    def __init__(self, verdict: _Optional[_Union[Verdict, _Mapping]] = ...) -> None: ...

class AssessStreamRequest(_message.Message):
    __slots__ = ("id", "image", "task")
    ID_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    id: str
    image: bytes
    task: str
    def __init__(self, id: _Optional[str] = ..., image: _Optional[bytes] = ..., task: _Optional[str] = ...) -> None: ...

class AssessStreamResponse(_message.Message):
    __slots__ = ("id", "verdict", "error")
    ID_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    id: str
    verdict: Verdict
    error: AssessError
    def __init__(self, id: _Optional[str] = ..., verdict: _Optional[_Union[Verdict, _Mapping]] = ..., error: _Optional[_Union[AssessError, _Mapping]] = ...) -> None: ...

class AssessError(_message.Message):
    __slots__ = ("code", "message", "field", "reason")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    code: int
    message: str
    field: str
    reason: str
    def __init__(self, code: _Optional[int] = ..., message: _Optional[str] = ..., field: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class SuggestRequest(_message.Message):
    __slots__ = ("image", "task", "max_side", "utility")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    MAX_SIDE_FIELD_NUMBER: _ClassVar[int]
    UTILITY_FIELD_NUMBER: _ClassVar[int]
    image: bytes
    task: str
    max_side: int
    utility: float
    def __init__(self, image: _Optional[bytes] = ..., task: _Optional[str] = ..., max_side: _Optional[int] = ..., utility: _Optional[float] = ...) -> None: ...

class SuggestResponse(_message.Message):
    __slots__ = ("suggestion",)
    SUGGESTION_FIELD_NUMBER: _ClassVar[int]
    suggestion: Suggestion
    def __init__(self, suggestion: _Optional[_Union[Suggestion, _Mapping]] = ...) -> None: ...

class Suggestion(_message.Message):
    __slots__ = ("task", "found", "quality", "utility", "bytes_before", "bytes_after", "curve", "advice", "utility_before", "width", "height", "thresholds", "predictor")
    TASK_FIELD_NUMBER: _ClassVar[int]
    FOUND_FIELD_NUMBER: _ClassVar[int]
    QUALITY_FIELD_NUMBER: _ClassVar[int]
    UTILITY_FIELD_NUMBER: _ClassVar[int]
    BYTES_BEFORE_FIELD_NUMBER: _ClassVar[int]
    BYTES_AFTER_FIELD_NUMBER: _ClassVar[int]
    CURVE_FIELD_NUMBER: _ClassVar[int]
    ADVICE_FIELD_NUMBER: _ClassVar[int]
    UTILITY_BEFORE_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    THRESHOLDS_FIELD_NUMBER: _ClassVar[int]
    PREDICTOR_FIELD_NUMBER: _ClassVar[int]
    task: str
    found: bool
    quality: int
    utility: float
    bytes_before: int
    bytes_after: int
    curve: _containers.RepeatedCompositeFieldContainer[Rung]
    advice: _containers.RepeatedCompositeFieldContainer[Advice]
    utility_before: float
    width: int
    height: int
    thresholds: Thresholds
    predictor: PredictorInfo
    def __init__(self, task: _Optional[str] = ..., found: bool = ..., quality: _Optional[int] = ..., utility: _Optional[float] = ..., bytes_before: _Optional[int] = ..., bytes_after: _Optional[int] = ..., curve: _Optional[_Iterable[_Union[Rung, _Mapping]]] = ..., advice: _Optional[_Iterable[_Union[Advice, _Mapping]]] = ..., utility_before: _Optional[float] = ..., width: _Optional[int] = ..., height: _Optional[int] = ..., thresholds: _Optional[_Union[Thresholds, _Mapping]] = ..., predictor: _Optional[_Union[PredictorInfo, _Mapping]] = ...) -> None: ...

class Rung(_message.Message):
    __slots__ = ("quality", "utility", "bytes")
    QUALITY_FIELD_NUMBER: _ClassVar[int]
    UTILITY_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    quality: int
    utility: float
    bytes: int
    def __init__(self, quality: _Optional[int] = ..., utility: _Optional[float] = ..., bytes: _Optional[int] = ...) -> None: ...

class GetInfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetInfoResponse(_message.Message):
    __slots__ = ("server_version", "tasks", "limits")
    SERVER_VERSION_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    server_version: str
    tasks: _containers.RepeatedCompositeFieldContainer[TaskInfo]
    limits: Limits
    def __init__(self, server_version: _Optional[str] = ..., tasks: _Optional[_Iterable[_Union[TaskInfo, _Mapping]]] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ...) -> None: ...

class TaskInfo(_message.Message):
    __slots__ = ("name", "thresholds", "predictor", "mode")
    NAME_FIELD_NUMBER: _ClassVar[int]
    THRESHOLDS_FIELD_NUMBER: _ClassVar[int]
    PREDICTOR_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    name: str
    thresholds: Thresholds
    predictor: PredictorInfo
    mode: Mode
    def __init__(self, name: _Optional[str] = ..., thresholds: _Optional[_Union[Thresholds, _Mapping]] = ..., predictor: _Optional[_Union[PredictorInfo, _Mapping]] = ..., mode: _Optional[_Union[Mode, str]] = ...) -> None: ...

class Limits(_message.Message):
    __slots__ = ("max_image_bytes", "max_image_pixels", "formats")
    MAX_IMAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_IMAGE_PIXELS_FIELD_NUMBER: _ClassVar[int]
    FORMATS_FIELD_NUMBER: _ClassVar[int]
    max_image_bytes: int
    max_image_pixels: int
    formats: _containers.RepeatedScalarFieldContainer[ImageFormat]
    def __init__(self, max_image_bytes: _Optional[int] = ..., max_image_pixels: _Optional[int] = ..., formats: _Optional[_Iterable[_Union[ImageFormat, str]]] = ...) -> None: ...
