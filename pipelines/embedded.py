"""Where a pipeline's networks are: in a folder, or in the package."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import as_file, files
from pathlib import Path

from pipelines.card import NetworkCard
from utility_gate.checkpoint import CARD
from utility_gate.errors import CheckpointError
from utility_gate.predictor import EMBEDDED
from utility_gate.types import PredictorInfo

DETECTOR, CLASSIFIER = "detector", "classifier"
"""The folders of the two networks in a pipeline's folder."""


@contextmanager
def model_folder(source: Path | str, package: str) -> Iterator[Path]:
    """The folder `source`, or, for "embedded", what ships with `package` in `default/`.

    Raises:
        CheckpointError: if there is no such folder.
    """
    if str(source) == EMBEDDED:
        with as_file(files(package) / "default") as folder:
            if not folder.is_dir():
                name = package.rpartition(".")[2]
                raise CheckpointError(
                    f"{package}: expected an embedded network, there is none; train one with "
                    f"`utility-gate pipeline train {name}` and give its folder"
                )
            yield folder
        return
    if not Path(source).is_dir():
        raise CheckpointError(f"{source}: expected a folder of a pipeline's networks, found none")
    yield Path(source)


def network_files(source: Path | str) -> list[Path]:
    """The files whose change means that a folder's networks are others; none for "embedded"."""
    if str(source) == EMBEDDED:
        return []
    cards = sorted(Path(source).glob(f"**/{CARD}"))
    return [*cards, *sorted(Path(source).glob("**/*.onnx"))]


def model_info(card: NetworkCard) -> PredictorInfo:
    """Name, version and digest, as every answer carries them."""
    return PredictorInfo(card.name, card.version, card.weights.sha256)
