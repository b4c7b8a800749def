"""Who observes: processes on this machine, or actors on a Ray cluster. Outcomes may come in any
order; the same items give the same outcomes from each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from labelers.networks import NetworkFacts
from labelers.observe import ObserverSpec, Outcome, WorkItem, describe_networks

EngineName = Literal["local", "ray"]


@dataclass(frozen=True, slots=True)
class Engine:
    """`describe(spec)` opens the networks where they will be used and says what they are;
    `observe_all(spec, items, workers)` gives the outcomes of `items`; `count_workers()` says how
    many workers there can be."""

    describe: Callable[[ObserverSpec], tuple[NetworkFacts, ...]]
    observe_all: Callable[[ObserverSpec, Sequence[WorkItem], int], Iterator[Outcome]]
    count_workers: Callable[[], int]


def find_engine(name: EngineName) -> Engine:
    """The engine of this name.

    Raises:
        ConfigError: if what it needs is not installed.
    """
    if name == "ray":
        from labelers.engines import ray_data

        return Engine(ray_data.describe, ray_data.observe_all, ray_data.count_workers)
    from labelers.engines import local

    return Engine(describe_networks, local.observe_all, local.count_workers)
