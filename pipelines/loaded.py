"""What a network at work needs, whatever it answers: its card, a session, and a proof."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Generic, Self, TypeVar

from pipelines.card import NetworkCard, Vector
from utility_gate.checkpoint import load_card
from utility_gate.errors import CheckpointError, ConfigError, NetworkError
from utility_gate.networks import open_session

Card = TypeVar("Card", bound=NetworkCard)


class LoadedNetwork(ABC, Generic[Card]):
    """A network that has said of its card's conformance vectors what the card says; may be asked
    from several threads at once."""

    def __init__(self, card: Card, weights: bytes, threads: int = 1) -> None:
        """Open the weights and repeat the card's conformance vectors.

        Raises:
            CheckpointError: if they do not load, or say something else than the card.
        """
        self.card = card
        try:
            self._session = open_session(weights, threads)
            self._input = self._session.get_inputs()[0].name
            for number, vector in enumerate(card.conformance):
                self._check(number, vector)
        except (NetworkError, ConfigError) as error:
            raise CheckpointError(f"{card.name} {card.version}: {error}") from error

    @classmethod
    def load(cls, folder: Path, threads: int = 1) -> Self:
        """Load from a checkpoint folder.

        Raises:
            CheckpointError: if it holds no usable network of this kind.
        """
        return cls(*load_card(folder, cls._card_kind()), threads)

    @classmethod
    @abstractmethod
    def _card_kind(cls) -> type[Card]:
        """The card that such a network has."""

    @abstractmethod
    def _numbers(self, data: bytes) -> Mapping[str, float]:
        """What it says of an encoded image, by the names that conformance vectors have."""

    def _check(self, number: int, vector: Vector) -> None:
        numbers = self._numbers(vector.data)
        for name, expected in vector.expected.items():
            got = numbers.get(name, float("nan"))
            if not abs(got - expected) <= vector.tolerance:
                raise CheckpointError(
                    f"{self.card.name} {self.card.version}: conformance vector {number}: expected "
                    f"{name} {expected:.4f} +- {vector.tolerance:g}, got {got:.4f}; this machine "
                    "or its libraries compute something else than was evaluated"
                )
