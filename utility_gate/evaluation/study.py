"""What is evaluated on what: the TOML file of a study."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from utility_gate.errors import ConfigError
from utility_gate.predictor import is_embedded

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$", max_length=64)]


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str | Path) else value


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class GatesPart(_Part):
    """The trivial gates beside (a), which needs nothing: `reference` names the classifier of gate
    (b), which must have no vote in any label table, `reference_observations` the tables that have
    seen it look at the copies; `brisque` adds gate (c). On the training side of `labels` the
    thresholds are chosen for tables that have none."""

    labels: tuple[Path, ...] = ()
    reference: str | None = None
    reference_observations: tuple[Path, ...] = ()
    brisque: bool = False

    @model_validator(mode="after")
    def _check(self) -> GatesPart:
        if (self.reference is None) != (not self.reference_observations):
            raise ValueError("expected reference and reference_observations together")
        return self


class PredictorPart(_Part):
    """A predictor: a checkpoint's folder, "embedded" or "embedded:TASK", the label table whose
    held-out side makes its row, and what its labels came from, "classification", "detection" or
    another word."""

    name: Name
    checkpoint: str
    labels: Path
    trained_on: Name


class UnseenPart(_Part):
    """Observations of networks, at qualities, that no labels were made of. `networks` are all
    without a vote and but the reference unless given; `truth`, a COCO file, is for detectors."""

    name: Name
    observations: Path
    networks: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    truth: Path | None = None


class EncodingsPart(_Part):
    """A label table of which every kind of degradation is reported apart."""

    labels: Path


class Study(_Part):
    """A study. Sources lie below one of the `images` folders, looked at in their order."""

    images: Annotated[tuple[Path, ...], BeforeValidator(_as_list), Field(min_length=1)]
    gates: GatesPart = GatesPart()
    predictor: Annotated[tuple[PredictorPart, ...], Field(min_length=1)]
    unseen: tuple[UnseenPart, ...] = ()
    encodings: tuple[EncodingsPart, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> Study:
        for what, names in (
            ("predictor", [part.name for part in self.predictor]),
            ("unseen", [part.name for part in self.unseen]),
            ("encodings", [str(part.labels) for part in self.encodings]),
        ):
            if len(set(names)) != len(names):
                raise ValueError(f"{what}: expected each name once, got {', '.join(names)}")
        return self

    def inputs(self) -> tuple[Path, ...]:
        """Every table and file of truth, each once, in the study's order."""
        found: list[Path] = [part.labels for part in self.predictor]
        found += [*self.gates.labels, *self.gates.reference_observations]
        for part in self.unseen:
            found += [part.observations] if part.truth is None else [part.observations, part.truth]
        found += [part.labels for part in self.encodings]
        return tuple(dict.fromkeys(found))


def load_study(path: Path) -> Study:
    """A study from its TOML file; paths in it are relative to the file's folder.

    Raises:
        ConfigError: if the file is missing, no TOML or no study; it names the key.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        study = Study.model_validate(content)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: expected a TOML file of a study: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ConfigError(f"{path}: {where}: {first['msg']}") from error
    return _below(study, path.parent)


def _below(study: Study, folder: Path) -> Study:
    """The same study with its paths below `folder`."""
    return study.model_copy(
        update={
            "images": tuple(folder / path for path in study.images),
            "gates": study.gates.model_copy(
                update={
                    "labels": tuple(folder / path for path in study.gates.labels),
                    "reference_observations": tuple(
                        folder / path for path in study.gates.reference_observations
                    ),
                }
            ),
            "predictor": tuple(
                part.model_copy(
                    update={
                        "checkpoint": part.checkpoint
                        if is_embedded(part.checkpoint)
                        else str(folder / part.checkpoint),
                        "labels": folder / part.labels,
                    }
                )
                for part in study.predictor
            ),
            "unseen": tuple(
                part.model_copy(
                    update={
                        "observations": folder / part.observations,
                        "truth": None if part.truth is None else folder / part.truth,
                    }
                )
                for part in study.unseen
            ),
            "encodings": tuple(
                part.model_copy(update={"labels": folder / part.labels}) for part in study.encodings
            ),
        }
    )
