"""Several degradations one after another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from utility_gate.degrade.base import Degradation, PixelDegradation, View
from utility_gate.degrade.blur import MotionBlur
from utility_gate.degrade.jpeg import Jpeg
from utility_gate.images import Pixels


@dataclass(frozen=True, slots=True)
class Chain(Degradation):
    """Each step spoils what the one before left; the last one encodes the copy.

    Steps know their position, so two equal noise steps make different noise. A chain holds no
    chains: one long chain says the same.
    """

    name: ClassVar[str] = "chain"
    severities: ClassVar = tuple(
        {"steps": [{"kind": "motion_blur", **blur}, {"kind": "jpeg", **jpeg}]}
        for blur, jpeg in zip(MotionBlur.severities, Jpeg.severities, strict=True)
    )

    steps: tuple[Degradation, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.steps, tuple) or not self.steps:
            raise ValueError(f"expected a tuple of steps, at least one, got {self.steps!r}")
        for step in self.steps:
            if not isinstance(step, Degradation) or isinstance(step, Chain):
                raise ValueError(
                    f"expected steps that are degradations but no chains, got {step!r}"
                )

    def apply(self, pixels: Pixels, key: str = "") -> bytes:
        """The last step's copy."""
        return self.copy(pixels, key)[0]

    def copy(self, pixels: Pixels, key: str = "") -> tuple[bytes, Pixels]:
        """See `Degradation.copy`."""
        for index, step in enumerate(self.steps[:-1]):
            pixels = step.alter(pixels, _step_key(key, index))
        return self.steps[-1].copy(pixels, _step_key(key, len(self.steps) - 1))

    def view(self, width: int, height: int, key: str = "") -> View:
        """What the last step shows, in pixels of the source."""
        return self._follow(width, height, key)[0]

    def size(self, width: int, height: int, key: str = "") -> tuple[int, int]:
        """Width and height after the last step."""
        return self._follow(width, height, key)[1]

    def _follow(self, width: int, height: int, key: str) -> tuple[View, tuple[int, int]]:
        shown: View = (0.0, 0.0, float(width), float(height))
        size = (width, height)
        for index, step in enumerate(self.steps):
            step_key = _step_key(key, index)
            shown = _within(shown, size, step.view(*size, step_key))
            size = step.size(*size, step_key)
        return shown, size

    @property
    def parameters(self) -> dict[str, Any]:
        """The steps in order, each with its kind and its parameters."""
        return {"steps": [{"kind": step.name, **step.parameters} for step in self.steps]}

    @property
    def quality(self) -> int | None:
        """The last step's."""
        return self.steps[-1].quality

    @property
    def label(self) -> str:
        """All steps, in order."""
        return " + ".join(step.label for step in self.steps)

    def encoder(self) -> dict[str, Any]:
        """The last step's, and as `steps` every step's kind and encoder.

        A step between that changes pixels alone encodes nothing; it names its arithmetic.
        """
        steps = []
        for index, step in enumerate(self.steps):
            encoder = step.encoder()
            if isinstance(step, PixelDegradation) and index < len(self.steps) - 1:
                encoder = {"arithmetic": encoder["arithmetic"]}
            steps.append({"kind": step.name, **encoder})
        return {**self.steps[-1].encoder(), "steps": steps}

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any]) -> Self:
        """From the steps as tables, each with its `kind` and no lists in it.

        Raises:
            ValueError: for unknown, missing or impossible parameters, also a step's.
        """
        from utility_gate.degrade.registry import from_step  # which knows this class

        steps = parameters.get("steps")
        if parameters.keys() != {"steps"} or not isinstance(steps, list | tuple):
            raise ValueError(f"expected steps, a list of tables, got {dict(parameters)!r}")
        return cls(tuple(from_step(step) for step in steps))


def _step_key(key: str, index: int) -> str:
    return f"{key}/{index}"


def _within(shown: View, size: tuple[int, int], part: View) -> View:
    """`part` of an image of this size that shows the region `shown`, as a region like that."""
    x0, y0, x1, y1 = shown
    scale_x, scale_y = (x1 - x0) / size[0], (y1 - y0) / size[1]
    return (
        x0 + part[0] * scale_x,
        y0 + part[1] * scale_y,
        x0 + part[2] * scale_x,
        y0 + part[3] * scale_y,
    )
