"""Settings come from arguments, environment, file, defaults - in this order."""

from __future__ import annotations

import os
import runpy
from pathlib import Path

import pytest

from server.settings import GateSettings
from serving.settings import load_settings, usable_cores
from utility_gate.errors import ConfigError

ROOT = Path(__file__).parents[2]


def test_precedence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "gate.toml"
    file.write_text('port = 1\nweb_port = 2\nworkers = 3\n[predictors]\ndamage = "embedded"\n')
    monkeypatch.setenv("UTILITY_GATE_WEB_PORT", "20")
    monkeypatch.setenv("UTILITY_GATE_WORKERS", "30")
    settings = load_settings(GateSettings, file, workers=300 - 100, host=None)
    assert (settings.port, settings.web_port, settings.workers) == (1, 20, 200)
    assert settings.predictors == {"damage": "embedded"}
    assert settings.host == "127.0.0.1"


def test_the_environment_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UTILITY_GATE_PREDICTORS", '{"general": "/models/1"}')
    assert load_settings(GateSettings).predictors == {"general": "/models/1"}


def test_a_table_in_the_environment_replaces_the_file_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UTILITY_GATE_PREDICTORS", '{"damage": "/models/1"}')
    assert load_settings(GateSettings, ROOT / "configs" / "gate.toml").predictors == {
        "damage": "/models/1"
    }


def test_so_does_any_other_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "gate.toml"
    file.write_text('[modes]\ngeneral = "OFF"\ndamage = "OFF"\n')
    monkeypatch.setenv("UTILITY_GATE_MODES", '{"general": "SHADOW"}')
    assert load_settings(GateSettings, file).modes == {"general": "SHADOW"}


def test_a_misspelt_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UTILITY_GATE_MAX_IMAGE_BYTE", "1000")
    with pytest.raises(ConfigError, match="UTILITY_GATE_MAX_IMAGE_BYTE"):
        load_settings(GateSettings)


def test_the_cores_of_this_process_are_counted() -> None:
    assert 1 <= usable_cores() <= len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prot = 1", "prot: Extra inputs"),
        ("port = 70000", "port: Input should be less"),
        ("workers = 0", "workers: Input should be greater"),
        ("port = ", "settings:"),
        ("predictors = {}", "predictors"),
        ("max_image_pixels = 400_000_000", "max_image_pixels: Input should be less"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "gate.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_settings(GateSettings, file)


@pytest.mark.parametrize(
    "text",
    [
        '[upstreams.a]\nmetadata = { authorization = "Bearer SECRET" }\n',
        '[upstreams.a]\naddresses = ["h:1"]\nmetadata = "Bearer SECRET"\n',
        '[upstreams.a]\naddresses = ["h:1"]\nmetadata = { authorization = ["SECRET"] }\n',
        '[upstreams]\na = ["SECRET"]\n',
    ],
)
def test_mistakes_beside_a_secret_do_not_tell_it(tmp_path: Path, text: str) -> None:
    (tmp_path / "gate.toml").write_text(text)
    with pytest.raises(ConfigError, match=r"upstreams\.a") as caught:
        load_settings(GateSettings, tmp_path / "gate.toml")
    assert "SECRET" not in str(caught.value)


def test_a_missing_file_and_a_bad_variable_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="found none"):
        load_settings(GateSettings, tmp_path / "none.toml")
    monkeypatch.setenv("UTILITY_GATE_PREDICTORS", "not json")
    with pytest.raises(ConfigError, match="predictors"):
        load_settings(GateSettings)


def test_every_setting_is_documented_as_it_is() -> None:
    page = runpy.run_path(str(ROOT / "tools" / "settings_doc.py"))["render"]()
    assert all(field.description for field in GateSettings.model_fields.values())
    assert page == (ROOT / "docs" / "settings.md").read_text(), "run make docs"


def test_the_example_file_holds_the_defaults() -> None:
    example = load_settings(GateSettings, ROOT / "configs" / "gate.toml")
    assert example.model_dump() == load_settings(GateSettings).model_dump()
