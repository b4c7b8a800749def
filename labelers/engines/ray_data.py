"""Actors on a Ray cluster, or on a Ray of this machine's own, fed by Ray Data.

Images, weights and --out lie on a file system that every node sees under the same path.
"""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from labelers.networks import NetworkFacts
from labelers.observe import Observer, ObserverSpec, Outcome, WorkItem, describe_networks
from utility_gate.errors import ConfigError, NetworkError, UtilityGateError

try:
    import ray
    import ray.data
except ImportError as _missing:
    raise ConfigError("--engine ray needs Ray: pip install '.[ray]'") from _missing

BLOCK = 8
"""Sources per call of an actor."""


class ObserverActor:
    """One actor: opens the networks once, observes batch after batch."""

    def __init__(self, spec: bytes) -> None:
        self._spec: ObserverSpec = pickle.loads(spec)  # noqa: S301 - our own, from the driver
        self._observer: Observer | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[bytes]]:
        """Pickled items in, pickled outcomes out. Our own errors travel as outcomes, or Ray would
        wrap them, and retry."""
        return {"outcome": [pickle.dumps(self._observe(data)) for data in batch["item"]]}

    def _observe(self, data: bytes) -> Outcome | UtilityGateError:
        try:
            # Opened here, not at birth: what is wrong with a network is told as our own error.
            self._observer = self._observer or Observer(self._spec)
            return self._observer.observe(pickle.loads(data))  # noqa: S301 - from the driver
        except UtilityGateError as error:
            return error


def count_workers() -> int:
    """One for each GPU of the cluster; for each CPU if it has none."""
    with _connected():
        resources = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return max(1, int(resources.get("GPU", 0) or resources.get("CPU", 1)))


def describe(spec: ObserverSpec) -> tuple[NetworkFacts, ...]:
    """What the networks are on a worker of the cluster, which may have GPUs where this process
    has none.

    Raises:
        NetworkError: if one cannot be opened there.
    """
    with _connected():
        gpus = ray.cluster_resources().get("GPU", 0)  # type: ignore[no-untyped-call]
        task = ray.remote(num_cpus=1, num_gpus=min(1, gpus))(_describe)
        try:
            answer = pickle.loads(ray.get(task.remote(pickle.dumps(spec))))  # noqa: S301 - ours
        except ray.exceptions.RayError as error:
            raise _lost(error) from error
    if isinstance(answer, UtilityGateError):
        raise answer
    facts: tuple[NetworkFacts, ...] = answer
    return facts


def _describe(spec: bytes) -> bytes:
    try:
        return pickle.dumps(describe_networks(pickle.loads(spec)))  # noqa: S301 - ours
    except UtilityGateError as error:
        return pickle.dumps(error)


def observe_all(spec: ObserverSpec, items: Sequence[WorkItem], workers: int) -> Iterator[Outcome]:
    """Observe `items` by `workers` actors, on GPUs if the cluster has any.

    Raises:
        NetworkError: if a network's output is unusable.
    """
    if items:
        with _connected():
            yield from _stream(spec, items, workers)


@contextmanager
def _connected() -> Iterator[None]:
    """To the cluster of RAY_ADDRESS, or a Ray of this machine's own that ends with the block."""
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a run tells nobody that it ran
    ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.WARNING)
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        yield
    finally:
        ray.shutdown()


def _stream(spec: ObserverSpec, items: Sequence[WorkItem], workers: int) -> Iterator[Outcome]:
    ray.data.DataContext.get_current().enable_progress_bars = False
    gpus = ray.cluster_resources().get("GPU", 0)  # type: ignore[no-untyped-call]
    rows = [{"item": pickle.dumps(item)} for item in items]
    # Outcomes come block by block: small ones, so that little is lost when a run is killed.
    blocks = min(len(items), max(workers, -(-len(items) // BLOCK)))
    outcomes = ray.data.from_items(rows, override_num_blocks=blocks).map_batches(
        ObserverActor,
        fn_constructor_args=(pickle.dumps(spec),),
        batch_size=BLOCK,
        num_cpus=1,
        num_gpus=min(1.0, gpus / workers) if gpus else 0,
        compute=ray.data.ActorPoolStrategy(size=min(workers, blocks)),
    )
    try:
        for row in outcomes.iter_rows():
            outcome = pickle.loads(row["outcome"])  # noqa: S301 - from our own actors
            if isinstance(outcome, UtilityGateError):
                raise outcome
            yield outcome
    except ray.exceptions.RayError as error:
        raise _lost(error) from error


def _lost(error: Exception) -> NetworkError:
    reason = str(error).strip().splitlines()[-1]
    return NetworkError(f"Ray lost a worker: {reason}; finished parts are kept, run again")
