"""Who observes: processes on this machine, or actors on a Ray cluster. Outcomes may come in any
order; the same items give the same outcomes from each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from labelers.observe import ObserverSpec, Outcome, WorkItem

EngineName = Literal["local", "ray"]


@dataclass(frozen=True, slots=True)
class Engine:
    """`observe_all(spec, items, workers)` gives the outcomes of `items`; `count_workers()` says
    how many workers there can be."""

    observe_all: Callable[[ObserverSpec, Sequence[WorkItem], int], Iterator[Outcome]]
    count_workers: Callable[[], int]


def find_engine(name: EngineName) -> Engine:
    """The engine of this name.

    Raises:
        ConfigError: if what it needs is not installed.
    """
    if name == "ray":
        from labelers.engines import ray_data

        return Engine(ray_data.observe_all, ray_data.count_workers)
    from labelers.engines import local

    return Engine(local.observe_all, local.count_workers)
