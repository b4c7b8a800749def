"""Dynamic batches with a slow device that does not mind how many it gets."""

from __future__ import annotations

import gc
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from server.batches import BatchedPredictor, Batcher
from server.gate import Gate
from tests.conftest import encode
from utility_gate.errors import NotReadyError
from utility_gate.images import Pixels
from utility_gate.predictor import Utilities, UtilityPredictor


class SlowDevice:
    """20 ms a batch, whatever its size; the answer is the crop's first value."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.threads: set[int] = set()

    def predict(self, crops: Pixels) -> Utilities:
        self.sizes.append(len(crops))
        self.threads.add(threading.get_ident())
        time.sleep(0.02)
        if (crops == 13).all(axis=(1, 2, 3)).any():
            raise ZeroDivisionError("poison")
        return crops[:, 0, 0, 0] / 255.0


def crop(value: int) -> Pixels:
    return np.full((4, 4, 3), value, np.uint8)


def ask_all(batcher: Batcher, values: list[int]) -> list[float]:
    with ThreadPoolExecutor(len(values)) as pool:
        return list(pool.map(lambda value: batcher.ask(crop(value)), values))


def test_many_callers_share_batches_and_get_their_own_answers() -> None:
    device = SlowDevice()
    batcher = Batcher(device.predict, max_size=8, max_delay=0.05)
    values = [20 + n for n in range(32)]
    assert ask_all(batcher, values) == [value / 255.0 for value in values]
    assert max(device.sizes) == 8
    assert len(device.sizes) < 16
    assert len(device.threads) == 1
    batcher.close()


def test_one_alone_waits_no_longer_than_the_delay() -> None:
    batcher = Batcher(SlowDevice().predict, max_size=8, max_delay=0.01)
    assert batcher.ask(crop(51)) == 0.2
    batcher.close()


def test_a_poisoned_image_harms_no_neighbour() -> None:
    batcher = Batcher(SlowDevice().predict, max_size=4, max_delay=0.2)

    def ask(value: int) -> float | str:
        try:
            return batcher.ask(crop(value))
        except ZeroDivisionError as error:
            return str(error)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(ask, [51, 13, 102, 153])) == [0.2, "poison", 0.4, 0.6]
    batcher.close()


def test_closing_answers_what_was_asked_and_refuses_the_rest() -> None:
    batcher = Batcher(SlowDevice().predict, max_size=2, max_delay=0.01)
    with ThreadPoolExecutor(6) as pool:
        asked = [pool.submit(batcher.ask, crop(51)) for _ in range(6)]
        time.sleep(0.01)
        batcher.close()
        answers = [future.exception() or future.result() for future in asked]
    assert 0.2 in answers
    assert all(answer == 0.2 or isinstance(answer, NotReadyError) for answer in answers)
    with pytest.raises(NotReadyError):
        batcher.ask(crop(1))


@pytest.mark.parametrize(("size", "delay"), [(0, 0.1), (1, -1.0)])
def test_impossible_batches_are_refused(size: int, delay: float) -> None:
    with pytest.raises(ValueError, match="max_size >= 1"):
        Batcher(SlowDevice().predict, size, delay)


def test_a_batched_predictor_judges_as_the_plain_one(brightness_predictor: Path) -> None:
    plain = UtilityPredictor.load(brightness_predictor)
    batched = BatchedPredictor(plain, max_size=4, max_delay=0.02)
    one, other = Gate({"general": plain}), Gate({"general": batched})
    images = [encode(np.full((40, 40, 3), value, np.uint8), "PNG") for value in range(0, 250, 25)]
    images.append(encode(np.full((8, 8, 3), 200, np.uint8), "PNG"))  # too small to be judged
    with ThreadPoolExecutor(8) as pool:
        verdicts = list(pool.map(other.assess, images))
    assert [v.utility for v in verdicts] == pytest.approx([one.assess(i).utility for i in images])
    assert verdicts[-1].utility == 0
    batcher = batched.batcher
    del batched, other
    gc.collect()
    batcher._thread.join(5)
    assert not batcher._thread.is_alive(), "it should end with the last who holds it"
