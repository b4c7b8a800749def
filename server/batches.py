"""For accelerators, which like many images at once: calls of several threads become batches.

Knows neither gRPC nor images nor networks; each item owns a future.
"""

from __future__ import annotations

import queue
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future

import numpy as np

from utility_gate.checkpoint import Card
from utility_gate.errors import NotReadyError
from utility_gate.images import DecodedImage, DecodeLimits, Pixels
from utility_gate.predictor import Utilities, UtilityPredictor

Item = tuple[Pixels, "Future[float]"]


class Batcher:
    """Collects crops for `predict` until there are `max_size` or the first one has waited
    `max_delay` seconds, whichever comes first."""

    def __init__(
        self, predict: Callable[[Pixels], Utilities], max_size: int, max_delay: float
    ) -> None:
        """`predict` takes crops (N, S, S, 3) and returns utilities (N,); it is called from one
        thread only.

        Raises:
            ValueError: unless max_size >= 1 and max_delay >= 0.
        """
        if max_size < 1 or max_delay < 0:
            raise ValueError(
                f"expected max_size >= 1 and max_delay >= 0, got {max_size} and {max_delay}"
            )
        self._predict, self._max_size, self._max_delay = predict, max_size, max_delay
        self._items: queue.SimpleQueue[Item | None] = queue.SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name="batches", daemon=True)
        self._thread.start()

    def ask(self, crop: Pixels) -> float:
        """The utility of one crop (S, S, 3); waits for its batch.

        Raises:
            Exception: whatever `predict` raises for this very crop.
            NotReadyError: if the batcher is closed.
        """
        if self._closed:
            raise NotReadyError("the gate is shutting down; ask another one")
        future: Future[float] = Future()
        self._items.put((crop, future))
        return future.result()

    def end(self) -> None:
        """Answer what was asked, then end; does not wait for it."""
        self._closed = True
        self._items.put(None)

    def close(self) -> None:
        """The same, and wait for it."""
        self.end()
        self._thread.join()

    def _serve(self) -> None:
        while (first := self._items.get()) is not None:
            batch = self._fill([first])
            self._answer([item for item in batch if not item[1].done()])
        self._refuse_rest()

    def _fill(self, batch: list[Item]) -> list[Item]:
        latest = time.monotonic() + self._max_delay
        while len(batch) < self._max_size:
            try:
                item = self._items.get(timeout=max(0.0, latest - time.monotonic()))
            except queue.Empty:
                break
            if item is None:
                self._items.put(None)  # for `_serve`, after this batch
                break
            batch.append(item)
        return batch

    def _answer(self, batch: list[Item]) -> None:
        try:
            utilities = self._predict(np.stack([crop for crop, _ in batch]))
            answers = [float(utility) for _, utility in zip(batch, utilities, strict=True)]
        except Exception as error:  # noqa: BLE001 - one poisoned crop must not harm the others
            self._answer_apart(batch, error)
            return
        for (_, future), answer in zip(batch, answers, strict=True):
            future.set_result(answer)

    def _answer_apart(self, batch: list[Item], error: Exception) -> None:
        if len(batch) == 1:
            batch[0][1].set_exception(error)
            return
        for item in batch:
            self._answer([item])

    def _refuse_rest(self) -> None:
        while True:
            try:
                item = self._items.get_nowait()
            except queue.Empty:
                return
            if item is not None:
                item[1].set_exception(NotReadyError("the gate is shutting down; ask another one"))


class BatchedPredictor:
    """A predictor whose network is asked in batches; otherwise as `UtilityPredictor`. Its batcher
    ends when nobody holds it any more: after a reload, with the last image under way."""

    def __init__(self, predictor: UtilityPredictor, max_size: int, max_delay: float) -> None:
        self._inner = predictor
        self.batcher = Batcher(predictor.predict, max_size, max_delay)
        weakref.finalize(self, self.batcher.end)

    @property
    def card(self) -> Card:
        """What is known of the predictor."""
        return self._inner.card

    def decode(self, data: bytes, limits: DecodeLimits | None = None) -> DecodedImage:
        """See `UtilityPredictor.decode`."""
        return self._inner.decode(data, limits)

    def crop(self, image: DecodedImage) -> Pixels:
        """See `UtilityPredictor.crop`."""
        return self._inner.crop(image)

    def judge(self, image: DecodedImage, crop: Pixels) -> float:
        """See `UtilityPredictor.judge`; waits for the batch."""
        return 0.0 if self._inner.is_too_small(image) else self.batcher.ask(crop)
