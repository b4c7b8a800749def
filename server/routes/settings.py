"""The settings of routes and upstreams: what is judged, and where it goes then."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from utility_gate.errors import ConfigError

_MIB = 1024 * 1024

ALL = "*"
"""In place of a method: all of the service that have no route of their own."""

_METHOD = re.compile(r"([A-Za-z_]\w*)(\.[A-Za-z_]\w*)*/([A-Za-z_]\w*|\*)")
_PATH = re.compile(r"[A-Za-z_]\w*(\.[^.\s]+)*")
_METADATA_KEY = re.compile(r"[0-9a-z_.-]+")

Code = Literal["UNAVAILABLE", "DEADLINE_EXCEEDED", "INTERNAL", "UNKNOWN", "DATA_LOSS", "ABORTED"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RouteSettings(_Frozen):
    """One method of a pipeline, or the rest of its service."""

    method: str = Field(
        description='"package.Service/Method"; or "package.Service/*": all other methods of the '
        "service pass unjudged, whatever they stream. A service without it has only the methods "
        "that are named. A route to inference.GRPCInferenceService replaces the gate's own.",
    )
    upstream: str = Field(min_length=1, description="One of `upstreams`.")
    image_field: str = Field(
        default="",
        description='Where a request holds its encoded image: a dotted path to bytes ("image", '
        '"photo.data"), one part of which may be repeated; for inference.GRPCInferenceService/'
        'ModelInfer "inputs.NAME", a BYTES tensor. A request without it passes unjudged. Empty: '
        "so does every request.",
    )
    images: Literal["all", "any", "filter"] = Field(
        default="all",
        description="What passes of several images: the request if all may pass; if any may; or "
        "the request without those that may not, as long as one is left.",
    )
    task: str = Field(
        default="", description="What images are judged for; empty: the default task."
    )
    mode: Literal["ENFORCE", "SHADOW", "OFF"] | None = Field(
        default=None, description="In place of the task's mode."
    )
    review: Literal["pass", "stop"] = Field(
        default="pass", description="What becomes of images between the thresholds."
    )
    on_gate_failure: Literal["open", "closed"] | None = Field(
        default=None,
        description="Whether requests pass unjudged while the gate is in trouble, or does not yet "
        "know the method's types; by default as `fail_open` says of the task.",
    )
    timeout: float = Field(
        default=10.0,
        gt=0,
        le=3600,
        description="Most seconds of a judged call, judging included; less if its caller's "
        "deadline is earlier. Calls that pass unjudged have their caller's alone.",
    )

    @field_validator("method")
    @classmethod
    def _is_method(cls, value: str) -> str:
        if not _METHOD.fullmatch(value):
            raise ValueError(
                'write "package.Service/Method", or "package.Service/*" for all of its others'
            )
        return value

    @field_validator("image_field")
    @classmethod
    def _is_path(cls, value: str) -> str:
        if value and not _PATH.fullmatch(value):
            raise ValueError('write a path of fields such as "image" or "photo.data"')
        return value

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.name == ALL and self.image_field:
            raise ValueError(
                f"{self.method}: a route of a whole service judges nothing; leave image_field out, "
                "and name the methods whose images are to be judged in routes of their own"
            )
        without = {"images", "task", "mode", "review", "on_gate_failure", "timeout"}
        pointless = sorted(without & self.model_fields_set)
        if pointless and not self.image_field:
            raise ValueError(
                f"{self.method}: {', '.join(pointless)} without image_field has no meaning; say "
                "which field holds the image"
            )
        return self

    @property
    def service(self) -> str:
        """ "package.Service"."""
        return self.method.partition("/")[0]

    @property
    def name(self) -> str:
        """The method's own name, or ALL."""
        return self.method.partition("/")[2]

    @property
    def path(self) -> str:
        """gRPC's name of the method."""
        return f"/{self.method}"


class BreakerSettings(_Frozen):
    """When an address gets no calls for a while."""

    consecutive: int = Field(
        default=5, ge=1, le=1000, description="So many failures one after the other eject it."
    )
    failure_rate: float = Field(
        default=0.5, gt=0, le=1, description="So does this share of the calls in `window` seconds."
    )
    least_calls: int = Field(
        default=20, ge=1, le=10_000, description="Calls in the window before their share counts."
    )
    window: float = Field(default=10.0, gt=0, le=3600, description="Seconds.")
    ejection: float = Field(
        default=1.0,
        gt=0,
        le=3600,
        description="Seconds of the first ejection; each one that follows closely lasts twice as "
        "long. Afterwards one call is tried, another if that has not ended after `ejection` "
        "seconds, and one that succeeds ends it.",
    )
    longest_ejection: float = Field(default=30.0, gt=0, le=86400, description="Seconds.")
    codes: tuple[Code, ...] = Field(
        default=("UNAVAILABLE", "DEADLINE_EXCEEDED"),
        description="What counts as a failure. DEADLINE_EXCEEDED only if the pipeline was given "
        "five times what its answers take, or half of the route's timeout. INTERNAL and UNKNOWN "
        "can be had by sending a request that the pipeline stumbles over: one caller could close "
        "it to all.",
    )

    @model_validator(mode="after")
    def _grows(self) -> Self:
        if self.longest_ejection < self.ejection:
            raise ValueError("longest_ejection: give at least the seconds of ejection")
        return self


Address = Annotated[str, Field(min_length=1, max_length=500, pattern=r"^\S+$")]


class UpstreamSettings(_Frozen):
    """A pipeline: one or more addresses that serve the same."""

    addresses: tuple[Address, ...] = Field(
        min_length=1,
        max_length=256,
        description='"host:port", "dns:///name:port", "unix:/path"; calls go to the one with the '
        "fewest under way. A name with several hosts counts as one address, its hosts take turns.",
    )
    tls: bool = Field(
        default=False, description="Whether connections are encrypted; `ca` and `certificate` "
        "turn it on too.",
    )  # fmt: skip
    ca: Path | None = Field(
        default=None,
        description="PEM file of the authorities that are trusted; none: the public ones. Read "
        "again when it changes, as the next two are.",
    )
    certificate: Path | None = Field(
        default=None, description="PEM file: the gate's own certificate, if the pipeline wants one."
    )
    key: Path | None = Field(default=None, description="PEM file: the key of `certificate`.")
    authority: str = Field(
        default="", description="The name that certificates must have, if it is not the address's."
    )
    descriptors: Path | None = Field(
        default=None,
        description="A FileDescriptorSet of the pipeline's contract (`protoc --include_imports "
        "-o FILE`); none: its reflection is asked. ModelInfer needs neither.",
    )
    metadata: dict[str, SecretStr] = Field(
        default={},
        description="Sent with each call, in place of what the caller sent under these names: "
        '{ authorization = "Bearer KEY" }.',
    )
    forward_authorization: bool = Field(
        default=False,
        description="Whether `authorization` goes on to the pipeline even where it is the gate's "
        "own (`api_keys`).",
    )
    follow_health: bool = Field(
        default=True,
        description="Whether addresses that say NOT_SERVING (grpc.health.v1) get no calls; those "
        "without a health service count as healthy.",
    )
    health_service: str = Field(
        default="", max_length=200, description="The name to ask for; empty: the whole server."
    )
    max_in_flight: int = Field(
        default=128,
        ge=1,
        le=100_000,
        description="Calls under way, streams included; one more is RESOURCE_EXHAUSTED.",
    )
    max_response_bytes: int = Field(
        default=64 * _MIB, gt=0, le=1024 * _MIB, description="Largest message of an answer, bytes."
    )
    connect_seconds: float = Field(
        default=2.0,
        gt=0,
        le=60,
        description="How long an attempt to connect may take, and how far apart attempts are.",
    )
    breaker: BreakerSettings = Field(
        default=BreakerSettings(), description="When an address gets no calls for a while."
    )

    @field_validator("addresses")
    @classmethod
    def _are_different(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) < len(value):
            raise ValueError("name each address once")
        return value

    @field_validator("metadata")
    @classmethod
    def _are_metadata(cls, value: dict[str, SecretStr]) -> dict[str, SecretStr]:
        for name, text in value.items():
            reserved = name.startswith("grpc-") or name.endswith("-bin")
            secret = text.get_secret_value()
            wrong = ""
            if reserved or not _METADATA_KEY.fullmatch(name):
                wrong = (
                    'write a name of lower-case letters such as "x-api-key", without grpc- or -bin'
                )
            elif not (secret.isascii() and secret.isprintable()):
                wrong = "write visible ASCII characters and spaces alone"
            if wrong:  # no ValueError: that would be told with the secrets
                raise ConfigError(f"settings: upstreams: metadata: {name!r}: {wrong}")
        return value

    @property
    def encrypted(self) -> bool:
        """Whether TLS is spoken."""
        files = (self.ca, self.certificate, self.key)
        return self.tls or any(file is not None for file in files)


_OWN = ("utility_gate.v1.", "grpc.health.", "grpc.reflection.")
"""Services that the gate serves itself, whatever the routes."""


def check_routes(
    routes: Sequence[RouteSettings],
    upstreams: Collection[str] | None,
    tasks: Collection[str] | None,
) -> None:
    """Hold routes against each other and the other settings; None: those are wrong already.

    Raises:
        ValueError: saying what to write instead.
    """
    seen: set[str] = set()
    for route in routes:
        if route.method in seen:
            raise ValueError(f"{route.method}: give each method one route")
        seen.add(route.method)
        if route.service.startswith(_OWN):
            raise ValueError(f"{route.method}: the gate serves this itself; route other services")
        if upstreams is not None and route.upstream not in upstreams:
            known = ", ".join(upstreams) or "there is none: add a table [upstreams.NAME]"
            raise ValueError(
                f"{route.method}: upstream: expected one of {known}; got {route.upstream!r}"
            )
        if tasks is not None and route.task and route.task not in tasks:
            raise ValueError(
                f"{route.method}: task: expected one of {', '.join(tasks)}; got {route.task!r}"
            )
