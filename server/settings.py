"""Every setting of the gate, its default, and where it may be given."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from utility_gate.channels import API_KEY_VARIABLE
from utility_gate.errors import ConfigError
from utility_gate.images import MAX_PIXELS, DecodeLimits
from utility_gate.predictor import EMBEDDED

Port = Annotated[int, Field(ge=0, le=65535)]
_MIB = 1024 * 1024
_PREFIX = "UTILITY_GATE_"


def _variable(name: str) -> str:
    return _PREFIX + name.upper()


def usable_cores() -> int:
    """Cores that this process may use: its affinity, and a container's quota if there is one."""
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        cores = min(cores, math.ceil(int(quota) / int(period)))
    except (OSError, ValueError):  # no cgroup v2, or the quota is "max"
        return cores
    return max(1, cores)


class CanarySettings(BaseModel):
    """A predictor on trial."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    predictor: str = Field(description="Checkpoint folder, or 'embedded'.")
    share: float = Field(default=0.05, gt=0, le=1, description="Of the task's images.")


class GateSettings(BaseSettings):
    """Settings of one gate.

    Precedence: arguments, then environment (`UTILITY_GATE_` + the upper-case name; tables as
    JSON), then the TOML file, then the defaults below. A table is taken from one of them whole.
    Unknown names are refused.
    """

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX, frozen=True, extra="forbid", validate_default=True
    )

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
        description="PEM file: the gate's certificate, then intermediate ones. Turns on TLS. Read "
        "again when it changes, as the next two are.",
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
    predictors: dict[str, str] = Field(
        default={"general": EMBEDDED},
        min_length=1,
        description="Task to checkpoint folder, or to 'embedded'. The first is the default task.",
    )
    modes: dict[str, Literal["ENFORCE", "SHADOW", "OFF"]] = Field(
        default={},
        description="Task to mode. ENFORCE: the decision is the judgement. SHADOW: images are "
        "judged and all let through; metrics and the verdict's `judgement` tell. OFF: let through "
        "unseen.",
    )
    fail_open: tuple[str, ...] = Field(
        default=(),
        description="Tasks whose images are let through unjudged, in mode FALLBACK, when the gate "
        "is overloaded or fails. Others get the error (fail closed).",
    )
    canaries: dict[str, CanarySettings] = Field(
        default={},
        description="Task to a second predictor that judges a share of its images too, for the "
        'metrics alone: { predictor = "FOLDER", share = 0.05 }.',
    )
    watch_seconds: float = Field(
        default=0.0,
        ge=0,
        le=3600,
        description="Look so often whether predictors' files have changed, and reload them; 0: "
        "only on SIGHUP.",
    )
    device: Literal["cpu", "cuda"] = Field(
        default="cpu",
        description="Where networks run. cuda needs onnxruntime-gpu; images then go there in "
        "batches.",
    )
    batch_size: int = Field(
        default=16, ge=1, le=256, description="Most images of a batch; on an accelerator only."
    )
    batch_delay_ms: float = Field(
        default=2.0,
        ge=0,
        le=1000,
        description="How long the first image of a batch waits for others, milliseconds.",
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
    max_streams: int = Field(
        default=64,
        ge=1,
        description="AssessStream calls open at a time; one more is RESOURCE_EXHAUSTED. A stream "
        "whose reader does not read holds about 2 x workers + 7 images.",
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
    max_images_per_request: int = Field(
        default=16,
        ge=1,
        le=1024,
        description="Most images of one ModelInfer (Open Inference Protocol); the request as a "
        "whole must fit into one message, max_image_bytes and 4 MiB.",
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
        """Threads that carry images: while a batch is out, its threads only wait."""
        return self.workers if self.device == "cpu" else max(self.workers, 2 * self.batch_size)

    @property
    def limits(self) -> DecodeLimits:
        """The decoder's limits."""
        return DecodeLimits(max_bytes=self.max_image_bytes, max_pixels=self.max_image_pixels)


def load_settings(file: Path | None = None, **overrides: Any) -> GateSettings:
    """Settings from a TOML file (if given), the environment and `overrides` (None: not given).

    Raises:
        ConfigError: naming each setting that is unknown or out of range.
    """

    class FileSettings(GateSettings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
            file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            toml = TomlConfigSettingsSource(settings_cls, file)
            if _variable("predictors") in os.environ:
                toml.init_kwargs.pop("predictors", None)  # tables would be merged otherwise
            return init_settings, env_settings, toml

    known = {_variable(name) for name in GateSettings.model_fields}
    known.add(API_KEY_VARIABLE)  # the client's, who may share our environment
    unknown = {name for name in os.environ if name.startswith(_PREFIX)} - known
    if unknown:
        raise ConfigError(f"settings: unknown environment variables {', '.join(sorted(unknown))}")
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        if file is not None and not file.is_file():
            raise ConfigError(f"{file}: expected a TOML file of settings, found none")
        return FileSettings(**given) if file is not None else GateSettings(**given)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, e['loc']))}: {e['msg']}, got {e['input']!r}"
            for e in error.errors()
        )
        raise ConfigError(f"settings: {problems}") from error
    except ValueError as error:  # broken TOML, broken JSON in the environment
        raise ConfigError(f"settings: {error}") from error
