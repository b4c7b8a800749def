"""Print docs/settings.md from the settings' own descriptions (`make docs`)."""

from server.settings import GateSettings

HEAD = """# Settings

Given, in order of precedence, as an option of `utility-gate serve` (`--host`, `--port`,
`--web-port`), as an environment variable, in a TOML file (`utility-gate serve --config FILE`,
see `configs/gate.toml`), or left at the default. Unknown names and impossible values are refused
when the gate starts. In the environment tables and lists are JSON, and replace those of the file
whole: `UTILITY_GATE_MODES='{"general": "SHADOW"}'`, `UTILITY_GATE_FAIL_OPEN='["general"]'`.
Relative paths start at the working directory. `utility-gate health`, and so the image's
HEALTHCHECK, reads the environment, and a file only with `--config`: give ports and certificates
where both can see them. This page is made from `server/settings.py` by `make docs`.

| TOML name | environment | default | meaning |
|---|---|---|---|
"""


def render() -> str:
    """The page."""
    rows = []
    for name, field in GateSettings.model_fields.items():
        default = "one per core" if field.default_factory else f"`{field.default!r}`"
        cells = (f"`{name}`", f"`UTILITY_GATE_{name.upper()}`", default, field.description)
        rows.append("| " + " | ".join(map(str, cells)) + " |\n")
    return HEAD + "".join(rows)


if __name__ == "__main__":
    print(render(), end="")
