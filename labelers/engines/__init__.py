"""Who observes: processes on this machine, or actors on a Ray cluster. Outcomes may come in any
order; the same items give the same outcomes from each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal

from labelers.observe import ObserverSpec, Outcome, WorkItem

EngineName = Literal["local", "ray"]
Engine = Callable[[ObserverSpec, Sequence[WorkItem], int], Iterator[Outcome]]
"""(spec, items, workers) to outcomes."""


def find_engine(name: EngineName) -> Engine:
    """The engine of this name.

    Raises:
        ConfigError: if what it needs is not installed.
    """
    if name == "ray":
        from labelers.engines import ray_data

        return ray_data.observe_all
    from labelers.engines import local

    return local.observe_all
