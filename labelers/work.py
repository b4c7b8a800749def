"""The rounds of one run: parts that are there already, parts that must be made."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence

import pyarrow as pa

from labelers.engines import Engine
from labelers.observe import Observed, ObserverSpec, Outcome, WorkItem
from labelers.store import PartStore, part_items
from utility_gate.errors import NetworkError

log = logging.getLogger(__name__)

Report = Callable[[int, int], None]


class Work:
    """Observes round after round into `store`.

    `fingerprint` says which networks the workers must have opened; `observed` sources were
    looked at here, the networks' forward passes took `forward_seconds` of the workers'
    `busy_seconds`.
    """

    def __init__(
        self, store: PartStore, spec: ObserverSpec, engine: Engine, workers: int, fingerprint: str
    ) -> None:
        self._store, self.spec = store, spec
        self._engine, self._workers, self._fingerprint = engine, workers, fingerprint
        self._rounds: list[list[Sequence[WorkItem]]] = []
        self.observed, self.forward_seconds, self.busy_seconds = 0, 0.0, 0.0

    def observe(self, items: list[WorkItem], progress: Report | None) -> None:
        """One more round: whatever of it is not there yet is made, part by part.

        Raises:
            NetworkError: if a worker has opened other networks than the job's.
            TableError: if a part cannot be written.
        """
        round_ = len(self._rounds)
        parts = part_items(items)
        todo = {n: part for n, part in enumerate(parts) if not self._store.has(round_, n, part)}
        part_of = {item.number: n for n, part in todo.items() for item in part}
        waiting: dict[int, dict[int, Outcome]] = {n: {} for n in todo}
        done = len(items) - len(part_of)
        if progress is not None:
            progress(done, len(items))
        for outcome in self._outcomes([item for part in todo.values() for item in part]):
            self._count(outcome, items)
            number = part_of[outcome.number]
            waiting[number][outcome.number] = outcome
            if len(waiting[number]) == len(todo[number]):
                ready = waiting.pop(number)
                in_order = [ready[item.number] for item in todo[number]]
                self._store.write(round_, number, todo[number], in_order)
            done += 1
            if progress is not None:
                progress(done, len(items))
        self._rounds.append(parts)

    def tables(self) -> Iterator[pa.Table]:
        """All observations so far, part after part."""
        for round_, number in self._parts():
            yield self._store.load(round_, number)

    def skipped(self) -> list[tuple[str, str, str]]:
        """(path, reason, digest) of all sources that could not be observed."""
        return [row for part in self._parts() for row in self._store.skipped(*part)]

    def _parts(self) -> Iterator[tuple[int, int]]:
        for round_, parts in enumerate(self._rounds):
            yield from ((round_, number) for number in range(len(parts)))

    def _outcomes(self, items: list[WorkItem]) -> Iterator[Outcome]:
        if items:
            workers = self._workers or self._engine.count_workers()
            yield from self._engine.observe_all(self.spec, items, workers)

    def _count(self, outcome: Outcome, items: list[WorkItem]) -> None:
        self.observed += 1
        if isinstance(outcome, Observed):
            if outcome.fingerprint != self._fingerprint:
                raise NetworkError(
                    "expected every worker to have the same weights on the same kind of device, "
                    "got one with others; finished parts are kept, put it right and run again"
                )
            self.forward_seconds += outcome.forward_seconds
            self.busy_seconds += outcome.seconds
        else:
            path = items[outcome.number - items[0].number].truth.path
            log.warning("%s is left out: %s", path, outcome.reason)
