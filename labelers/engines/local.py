"""Processes over the cores of this machine, one session of each network in each."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice

from labelers.observe import Observer, ObserverSpec, Outcome, WorkItem
from utility_gate.errors import NetworkError

AHEAD = 3
"""Items handed out per worker: enough that none waits, few enough that little is lost."""

_observer: Observer | None = None


def count_workers() -> int:
    """One for each core that this process may use."""
    return len(os.sched_getaffinity(0))


def observe_all(spec: ObserverSpec, items: Sequence[WorkItem], workers: int) -> Iterator[Outcome]:
    """Observe `items`, with one worker in this process.

    Raises:
        NetworkError: if a network's output is unusable, or a worker process died.
    """
    if not items:
        return
    if workers == 1:
        observer = Observer(spec)
        yield from map(observer.observe, items)
        return
    # Spawned, not forked: networks' threads do not survive a fork.
    pool = ProcessPoolExecutor(
        min(workers, len(items)),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start,
        initargs=(spec,),
    )
    try:
        yield from _through(pool, items, workers * AHEAD)
    except BrokenProcessPool as error:
        raise NetworkError(
            "a labelling process died, perhaps for want of memory; finished parts are kept, run "
            "again with fewer --workers"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _through(pool: ProcessPoolExecutor, items: Sequence[WorkItem], ahead: int) -> Iterator[Outcome]:
    """Outcomes as they come, never more than `ahead` items handed out."""
    left = iter(items)
    under_way: set[Future[Outcome]] = {pool.submit(_observe, i) for i in islice(left, ahead)}
    while under_way:
        done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
        under_way |= {pool.submit(_observe, item) for item in islice(left, len(done))}
        for future in done:
            yield future.result()


def _start(spec: ObserverSpec) -> None:
    """A worker's beginning: open the networks; leave with the parent, however that ends."""
    global _observer
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    _observer = Observer(spec)


def _leave_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _observe(item: WorkItem) -> Outcome:
    assert _observer is not None, "the pool's initializer has run"  # noqa: S101
    return _observer.observe(item)
