"""Every error this project raises on purpose.

    UtilityGateError
    ├── InputError                 what the caller sent; the caller can mend it
    │   ├── ImageError             the bytes of one image
    │   │   ├── NotAnImageError          empty, or no format that we read
    │   │   ├── CorruptImageError        begins as an image, does not decode
    │   │   ├── ImageTooLargeError       over the byte or the pixel limit
    │   │   └── ImageTooSmallError       too few pixels to say anything of what they show
    │   ├── TensorError            a tensor (Open Inference Protocol) that holds no images
    │   ├── UnknownModelError      no model (Open Inference Protocol) of this name and version
    │   └── UnknownTaskError       no predictor serves this task
    ├── ConfigError                settings, TOML files, command lines
    ├── NetworkError               a labelling network's entry, weights or output
    ├── TableError                 a ground-truth, observation or label table
    ├── CheckpointError            a predictor on disk that must not be used
    ├── ServiceError               the gate, seen from inside its server
    │   ├── OverloadedError              too many requests wait; nothing was computed
    │   │   └── RateLimitedError               this caller sends more than was agreed
    │   ├── UnauthenticatedError         no API key, or none that is known
    │   ├── TooLateError                 the caller's deadline cannot be met; nothing was computed
    │   └── NotReadyError                starting or draining
    ├── NotUsefulError             an image that was stopped in front of a pipeline
    └── GateError                  the gate, seen from its client
        ├── GateUnavailableError         not reachable, not ready or shedding load
        ├── GateTimeoutError             no answer before the deadline
        ├── GateDeniedError              the gate asks for an API key, or knows another
        ├── GateCancelledError           given up, by its caller or with its client
        └── GateProtocolError            an answer that this client cannot use

A message says what was expected, what came, and what to do.
"""

from __future__ import annotations

from typing import Any


class UtilityGateError(Exception):
    """Root of all errors raised on purpose."""


class InputError(UtilityGateError):
    """What the caller sent cannot be used.

    `field` names the request field at fault (`image`, `task`, ...).
    """

    field = "request"


class ImageError(InputError):
    """The bytes given as an image cannot be judged."""

    field = "image"


class NotAnImageError(ImageError):
    """The bytes are empty or are no JPEG, PNG or WebP."""


class CorruptImageError(ImageError):
    """The bytes begin as an image but do not decode to one."""


class ImageTooLargeError(ImageError):
    """The image is over the byte limit or the pixel limit; it was not decoded."""


class ImageTooSmallError(ImageError):
    """The image has too few pixels for a pipeline to say anything of what they show."""


class TensorError(InputError):
    """A tensor of the Open Inference Protocol that does not hold images."""

    field = "inputs"


class UnknownModelError(InputError):
    """No model of the Open Inference Protocol has this name and version."""

    field = "model_name"


class UnknownTaskError(InputError):
    """No predictor is loaded for the task asked for."""

    field = "task"


class ConfigError(UtilityGateError):
    """A setting, configuration file or command line that cannot be used."""


class NetworkError(UtilityGateError):
    """A labelling network whose entry, weights or outputs do not fit."""


class TableError(UtilityGateError):
    """A table (ground truth, observations, labels) that cannot be used."""


class CheckpointError(UtilityGateError):
    """A predictor on disk that is incomplete, damaged or fails its conformance vectors."""


class ServiceError(UtilityGateError):
    """The server cannot take this request now; another time or another replica can."""


class OverloadedError(ServiceError):
    """Too many requests wait already; nothing was computed for this one. Trying again makes
    sense after `retry_after` seconds."""

    def __init__(self, message: str, retry_after: float = 0.5) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class RateLimitedError(OverloadedError):
    """The caller's API key is over its limit of images; others are still served."""


class UnauthenticatedError(ServiceError):
    """The call bears no API key, or none that this gate knows. It is not said which."""


class TooLateError(ServiceError):
    """The caller's deadline cannot be met, or passed in the line; nothing was computed."""


class NotReadyError(ServiceError):
    """The server is starting or draining. Trying again makes sense after `retry_after` seconds."""

    def __init__(self, message: str, retry_after: float = 0.5) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class NotUsefulError(UtilityGateError):
    """An image was judged and stopped; `verdict` (a `types.Verdict`) says why."""

    def __init__(self, message: str, verdict: Any) -> None:
        super().__init__(message)
        self.verdict = verdict


class GateError(UtilityGateError):
    """The gate did not answer with a verdict."""


class GateUnavailableError(GateError):
    """The gate is not reachable, not ready, or sheds load; trying again later may help."""


class GateTimeoutError(GateError):
    """The gate did not answer before the deadline."""


class GateDeniedError(GateError):
    """The gate wants an API key and got none that it knows; trying again does not help."""


class GateCancelledError(GateError):
    """The call was given up: by its caller, or because its client was closed."""


class GateProtocolError(GateError):
    """The gate answered something that this client cannot use (a version mismatch, a bug)."""
