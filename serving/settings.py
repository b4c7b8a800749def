"""The settings that every service has, and where settings may be given."""

from __future__ import annotations

import math
import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from utility_gate.channels import API_KEY_VARIABLE
from utility_gate.errors import ConfigError
from utility_gate.images import MAX_PIXELS, DecodeLimits

Port = Annotated[int, Field(ge=0, le=65535)]
_MIB = 1024 * 1024


def usable_cores() -> int:
    """Cores that this process may use: its affinity, and a container's quota if there is one."""
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        cores = min(cores, math.ceil(int(quota) / int(period)))
    except (OSError, ValueError):  # no cgroup v2, or the quota is "max"
        return cores
    return max(1, cores)


class ServiceSettings(BaseSettings):
    """Settings of one service. A subclass gives `noun`, in `model_config` an `env_prefix`, and
    adds fields of its own.

    Precedence: arguments, then environment (the prefix + the upper-case name; tables as JSON),
    then the TOML file, then the defaults below. A table is taken from one of them whole. Unknown
    names are refused.
    """

    model_config = SettingsConfigDict(frozen=True, extra="forbid", validate_default=True)

    noun: ClassVar[str]
    """What callers and operators are told the service is: "the gate is starting"."""

    host: str = Field(
        default="127.0.0.1",
        description="Address to listen on. Without TLS it must be loopback, or allow_plaintext "
        "be set.",
    )
    port: Port = Field(default=50051, description="gRPC port; 0 takes a free one.")
    web_port: Port = Field(
        default=9464, description="HTTP port of /metrics, /healthz, /readyz; 0 takes a free one."
    )
    web_host: str = Field(
        default="",
        description="Address of that port, which is never encrypted and asks for no key; empty: "
        "the same as host.",
    )
    tls_certificate: Path | None = Field(
        default=None,
        description="PEM file: the server's certificate, then intermediate ones. Turns on TLS. "
        "Read again when it changes, as the next two are.",
    )
    tls_key: Path | None = Field(
        default=None, description="PEM file: the private key of tls_certificate, no password."
    )
    tls_client_ca: Path | None = Field(
        default=None,
        description="PEM file of authorities. Turns on mutual TLS: clients must show a certificate "
        "that one of them signed.",
    )
    allow_plaintext: bool = Field(
        default=False,
        description="Whether to listen beyond loopback without TLS: in a trusted network, or "
        "behind something that encrypts.",
    )
    api_keys: Path | None = Field(
        default=None,
        description="TOML file of the digests of API keys, which `utility-gate key` makes; calls "
        "then need one. Read again when it changes.",
    )
    watch_seconds: float = Field(
        default=0.0,
        ge=0,
        le=3600,
        description="Look so often whether predictors' files have changed, and reload them; 0: "
        "only on SIGHUP.",
    )
    workers: int = Field(
        default_factory=usable_cores,
        ge=1,
        le=256,
        description="Threads that decode and infer, one image each. Default: one per core.",
    )
    max_waiting: int = Field(
        default=64,
        ge=0,
        description="Requests that may wait for a worker; one more is answered "
        "RESOURCE_EXHAUSTED at once, or takes the place of one by a client with more in line.",
    )
    max_image_bytes: int = Field(
        default=20 * _MIB, gt=0, le=1024 * _MIB, description="Largest encoded image, bytes."
    )
    max_image_pixels: int = Field(
        default=50_000_000,
        gt=0,
        le=MAX_PIXELS,
        description="Largest image, width x height; checked before decoding, which takes up to "
        "about 16 bytes a pixel in every worker.",
    )
    drain_seconds: float = Field(
        default=1.0,
        ge=0,
        le=300,
        description="After SIGTERM: time to serve on as NOT_SERVING, so that balancers notice.",
    )
    grace_seconds: float = Field(
        default=6.0,
        gt=0,
        le=3600,
        description="After that: time that accepted requests have to finish; then up to 2 s for "
        "spans, if traces are on. Container engines kill after 10 s in all unless told otherwise.",
    )
    reflection: bool = Field(default=True, description="Whether gRPC reflection is served.")
    log_level: str = Field(
        default="INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$", description="Least level logged."
    )
    log_format: str = Field(
        default="text",
        pattern="^(text|json)$",
        description="How log lines are written to stderr: 'text', or 'json', one object a line.",
    )
    trace_endpoint: str = Field(
        default="",
        pattern="^(https?://.+)?$",
        description="Where spans are sent by OTLP over gRPC, 'http://collector:4317'; needs "
        "`pip install '.[trace]'`. Empty: where OTEL_EXPORTER_OTLP_ENDPOINT says; "
        "nowhere if that is empty too.",
    )

    @property
    def threads(self) -> int:
        """Threads that carry images."""
        return self.workers

    @property
    def limits(self) -> DecodeLimits:
        """The decoder's limits."""
        return DecodeLimits(max_bytes=self.max_image_bytes, max_pixels=self.max_image_pixels)

    @classmethod
    def variable(cls, name: str) -> str:
        """The environment variable of a setting."""
        return f"{cls.model_config['env_prefix']}{name}".upper()


Settings = TypeVar("Settings", bound=ServiceSettings)


def load_settings(kind: type[Settings], file: Path | None = None, **overrides: Any) -> Settings:
    """Settings of one kind from a TOML file (if given), the environment and `overrides` (None: not
    given).

    Raises:
        ConfigError: naming each setting that is unknown or out of range.
    """
    known = {kind.variable(name) for name in kind.model_fields}
    known.add(API_KEY_VARIABLE)  # the client's, who may share our environment
    unknown = {name for name in os.environ if name.startswith(kind.variable(""))} - known
    if unknown:
        raise ConfigError(f"settings: unknown environment variables {', '.join(sorted(unknown))}")
    try:
        given = _read(kind, file) if file is not None else {}
        given |= {name: value for name, value in overrides.items() if value is not None}
        return kind(**given)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, e['loc']))}: {e['msg']}{_got(e['loc'], e['input'])}"
            for e in error.errors()
        )
        raise ConfigError(f"settings: {problems}") from error
    except ValueError as error:  # broken TOML, broken JSON in the environment
        raise ConfigError(f"settings: {error}") from error


def _got(where: tuple[int | str, ...], given: object) -> str:
    """What was given, but for what may hold a secret: metadata, and whole tables."""
    if isinstance(given, dict | list) or "metadata" in where:
        return ""
    return f", got {given!r}"


def _read(kind: type[Settings], file: Path) -> dict[str, Any]:
    """What a file gives and the environment does not."""
    if not file.is_file():
        raise ConfigError(f"{file}: expected a TOML file of settings, found none")
    variables = {name.upper() for name in os.environ}
    given = tomllib.loads(file.read_text(encoding="utf-8"))
    return {name: value for name, value in given.items() if kind.variable(name) not in variables}
