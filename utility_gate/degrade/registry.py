"""Degradations by name: from TOML, to tables and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from utility_gate.degrade.base import Degradation, canonical
from utility_gate.degrade.blur import DefocusBlur, MotionBlur
from utility_gate.degrade.chain import Chain
from utility_gate.degrade.crop import Crop
from utility_gate.degrade.jpeg import Jpeg, JpegTwice
from utility_gate.degrade.light import LowLight, SensorNoise
from utility_gate.degrade.messenger import Messenger
from utility_gate.degrade.screenshot import Screenshot
from utility_gate.degrade.webp import Webp

REGISTRY: dict[str, type[Degradation]] = {
    kind.name: kind
    for kind in (
        Jpeg,
        JpegTwice,
        Webp,
        Messenger,
        Screenshot,
        MotionBlur,
        DefocusBlur,
        SensorNoise,
        LowLight,
        Crop,
        Chain,
    )
}
"""Every kind of degradation by its name."""


def from_parameters(name: str, parameters: Mapping[str, Any]) -> Degradation:
    """The degradation with this name and these `Degradation.parameters`.

    Raises:
        ValueError: for an unknown name, and for unknown, missing or impossible parameters.
    """
    kind = _kind(name)
    if not isinstance(parameters, Mapping):
        raise ValueError(f"{name}: expected a table of parameters, got {parameters!r}")
    try:
        return kind.from_parameters(parameters)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def from_config(table: Mapping[str, Any]) -> tuple[Degradation, ...]:
    """The degradations of one TOML table `[[degrade]]`.

    `kind` is a name; beside it stand the parameters, or `severity` (1-5) and what it leaves
    open, such as a seed. One of them may be a list: then there is a degradation for each of its
    values, in its order. A chain's `steps` are tables like this one, without lists.

        [[degrade]]
        kind = "motion_blur"
        severity = [1, 2, 3, 4, 5]
        seed = 3

    Raises:
        ValueError: for an unknown kind, unknown, missing or impossible parameters, several
            lists, and lists that are empty or repeat a value.
    """
    name, given = _split(table)
    lists = [key for key, value in given.items() if _is_list(name, key, value)]
    if not lists:
        return (_one(name, given),)
    if len(lists) > 1:
        raise ValueError(f"{name}: expected at most one list, got {', '.join(lists)}")
    values = given[lists[0]]
    made = tuple(_one(name, {**given, lists[0]: value}) for value in values)
    if not made or len(set(made)) != len(made):
        raise ValueError(f"{name}: expected distinct values of {lists[0]}, got {values!r}")
    return made


def from_step(table: Mapping[str, Any]) -> Degradation:
    """The one degradation of a chain's step.

    Raises:
        ValueError: as `from_config`, and for any list.
    """
    name, given = _split(table)
    if name == Chain.name:
        raise ValueError("expected steps that are no chains, got a chain")
    lists = [key for key, value in given.items() if _is_list(name, key, value)]
    if lists:
        raise ValueError(f"{name}: expected no lists in a chain's step, got {', '.join(lists)}")
    return _one(name, given)


def to_json(degradation: Degradation) -> str:
    """The parameters as they stand in tables: sorted keys, no spaces."""
    return canonical(degradation.parameters)


def from_json(name: str, text: str) -> Degradation:
    """The inverse of `to_json`.

    Raises:
        ValueError: as `from_parameters`, and if the text is no JSON.
    """
    try:
        parameters = json.loads(text)
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{name}: expected parameters as JSON, got {text!r}") from error
    return from_parameters(name, parameters)


def describe(degradation: Degradation) -> str:
    """A few words for plots and messages: "jpeg 30", "motion_blur 3px"."""
    return degradation.label


def _kind(name: object) -> type[Degradation]:
    if not isinstance(name, str) or name not in REGISTRY:
        raise ValueError(f"expected a kind of degradation in {', '.join(REGISTRY)}; got {name!r}")
    return REGISTRY[name]


def _split(table: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    if not isinstance(table, Mapping):
        raise ValueError(f"expected a table with the kind of a degradation, got {table!r}")
    given = dict(table)
    return _kind(given.pop("kind", None)).name, given


def _is_list(name: str, key: str, value: object) -> bool:
    return isinstance(value, list | tuple) and (name, key) != (Chain.name, "steps")


def _one(name: str, given: Mapping[str, Any]) -> Degradation:
    if "severity" not in given:
        return from_parameters(name, given)
    others = {key: value for key, value in given.items() if key != "severity"}
    try:
        return REGISTRY[name].at_severity(given["severity"], **others)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: {error}") from error
