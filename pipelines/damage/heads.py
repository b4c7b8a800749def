"""What the damage pipeline's classifier is asked."""

from __future__ import annotations

from pipelines.heads import Head

NO_CAR = "no_car"

TYPE = Head(
    "type",
    (
        "bumper_dent", "bumper_scratch", "door_dent", "door_scratch", "glass_shatter", "head_lamp",
        "tail_lamp", "unknown", "none", NO_CAR,
    ),
)  # fmt: skip
"""Seven types of damage; `unknown` is damage of another type, `none` an undamaged car."""

SEVERITY = Head("severity", ("minor", "moderate", "severe"))

LOCATION = Head("location", ("front", "rear", "side"), multi_label=True)
"""Trained when there are labels for it."""
