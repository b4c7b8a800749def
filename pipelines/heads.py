"""What a classifier answers: one head a question."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Head:
    """One question about an image and its possible answers, in the order of the logits.

    Exactly one class is true, or, with `multi_label`, any number of them.

    Raises:
        ValueError: if there are fewer than two classes (one for `multi_label`) or two of one name.
    """

    name: str
    classes: tuple[str, ...]
    multi_label: bool = False

    def __post_init__(self) -> None:
        fewest = 1 if self.multi_label else 2
        if len(self.classes) < fewest:
            raise ValueError(f"head {self.name}: expected {fewest} classes, got {self.classes}")
        if len(set(self.classes)) < len(self.classes):
            raise ValueError(f"head {self.name}: expected different classes, got {self.classes}")

    def index(self, name: str) -> int:
        """The number of a class.

        Raises:
            ValueError: if there is none of this name.
        """
        if name not in self.classes:
            raise ValueError(
                f"head {self.name}: expected one of {', '.join(self.classes)}, got {name!r}"
            )
        return self.classes.index(name)
