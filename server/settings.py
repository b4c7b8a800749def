"""Every setting of the gate, its default, and where it may be given."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

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
        description="Address to listen on. Traffic is not encrypted: expose it to trusted "
        "networks only.",
    )
    port: Port = Field(default=50051, description="gRPC port; 0 takes a free one.")
    web_port: Port = Field(
        default=9464, description="HTTP port of /metrics, /healthz, /readyz; 0 takes a free one."
    )
    predictors: dict[str, str] = Field(
        default={"general": EMBEDDED},
        min_length=1,
        description="Task to checkpoint folder, or to 'embedded'. The first is the default task.",
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
        "RESOURCE_EXHAUSTED at once.",
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
        default=8.0,
        gt=0,
        le=3600,
        description="After that: time that accepted requests have to finish. Container engines "
        "kill after 10 s in all unless told otherwise.",
    )
    reflection: bool = Field(default=True, description="Whether gRPC reflection is served.")
    log_level: str = Field(
        default="INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$", description="Least level logged."
    )

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
