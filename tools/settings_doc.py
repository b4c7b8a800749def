"""Print docs/settings.md from the settings' own descriptions (`make docs`)."""

from collections.abc import Sequence

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from pipelines.car_model.app import CarModelSettings
from pipelines.damage.app import DamageSettings
from server.routes.settings import BreakerSettings, RouteSettings, UpstreamSettings
from server.settings import GateSettings
from serving.settings import ServiceSettings

HEAD = """# Settings

Given, in order of precedence, as an option of `utility-gate serve` (`--host`, `--port`,
`--web-port`), as an environment variable, in a TOML file (`utility-gate serve --config FILE`,
see `configs/gate.toml`), or left at the default. Unknown names and impossible values are refused
when the gate starts. In the environment tables and lists are JSON, and replace those of the file
whole: `UTILITY_GATE_MODES='{"general": "SHADOW"}'`, `UTILITY_GATE_FAIL_OPEN='["general"]'`.
Relative paths start at the working directory. `utility-gate health`, and so the image's
HEALTHCHECK, reads the environment, and a file only with `--config`: give ports and certificates
where both can see them. This page is made from `serving/settings.py` and `server/settings.py` by
`make docs`.
"""

TABLE = """
## {title}

| TOML name | environment | default | meaning |
|---|---|---|---|
"""

INNER = """
## {title}

{what}.

| TOML name | default | meaning |
|---|---|---|
"""

PIPELINES = """
## The pipelines

`utility-gate pipeline serve` has everything of "How it is served", under names of its own in the
environment (`DAMAGE_PIPELINE_HOST`, `CAR_MODEL_PIPELINE_HOST`, ...), and what follows.
"""


def render() -> str:
    """The page."""
    shared = list(ServiceSettings.model_fields)
    own = [name for name in GateSettings.model_fields if name not in shared]
    pipelines = (
        ("The damage pipeline", DamageSettings, ("port", "web_port", "model", "detector_side")),
        ("The car-model pipeline", CarModelSettings, ("port", "web_port", "model")),
    )
    return (
        HEAD
        + _table("What is judged, and how", own)
        + _table("How it is served", shared)
        + _inner("[[routes]]", "One method of a pipeline", RouteSettings)
        + _inner("[upstreams.NAME]", "One pipeline", UpstreamSettings)
        + _inner("[upstreams.NAME.breaker]", "When an address is left out", BreakerSettings)
        + PIPELINES
        + "".join(_table(title, names, kind) for title, kind, names in pipelines)
    )


def _table(title: str, names: Sequence[str], kind: type[ServiceSettings] = GateSettings) -> str:
    rows = []
    for name in names:
        field = kind.model_fields[name]
        default = "one per core" if field.default_factory else _default(field)
        cells = (f"`{name}`", f"`{kind.variable(name)}`", default, field.description)
        rows.append("| " + " | ".join(map(str, cells)) + " |\n")
    return TABLE.format(title=title) + "".join(rows)


def _inner(title: str, what: str, kind: type[BaseModel]) -> str:
    """A table of tables: no variables of their own."""
    rows = INNER.format(title=title, what=what)
    for name, field in kind.model_fields.items():
        rows += f"| `{name}` | {_default(field)} | {field.description} |\n"
    return rows


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "must be given"
    if isinstance(field.default, BaseModel):
        return "see below"
    return f"`{field.default!r}`"


if __name__ == "__main__":
    print(render(), end="")
