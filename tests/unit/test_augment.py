"""Augmented sources: boxes follow the pixels, names say everything, draws are repeatable."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import draw as draw_scene
from utility_gate.augment import Augmentation, draw, parse

SAME = Augmentation(flip=False, zoom=1, x=0, y=0, brightness=1, contrast=1)


def changed(**values: Any) -> Augmentation:
    fields = {name: getattr(SAME, name) for name in Augmentation.__slots__}
    return Augmentation(**(fields | values))


def shares(low: float, high: float) -> st.SearchStrategy[float]:
    return st.integers(round(low * 10_000), round(high * 10_000)).map(lambda n: n / 10_000)


ANY = st.builds(
    Augmentation,
    st.booleans(),
    shares(0.75, 1),
    shares(0, 1),
    shares(0, 1),
    shares(0.8, 1.2),
    shares(0.8, 1.2),
)


def test_the_identity_changes_nothing(photo: np.ndarray) -> None:
    assert (SAME.apply(photo) == photo).all()
    assert not np.shares_memory(SAME.apply(photo), photo)


def test_the_window_is_cut_before_the_flip(photo: np.ndarray) -> None:
    augmented = changed(flip=True, zoom=0.75, x=0.25, y=1).apply(photo)
    assert (augmented == photo[60:, 20:260][:, ::-1]).all()  # 80 and 60 pixels to spare
    assert changed(zoom=0.75, x=0.25, y=1).view(320, 240) == (20, 60, 260, 240)


def test_tones_by_hand() -> None:
    pixels = np.array([[[0, 100, 250]]], np.uint8)
    assert changed(brightness=1.2).apply(pixels).ravel().tolist() == [0, 120, 255]
    # (100 - 127.5) * 0.8 + 127.5 = 105.5, rounded up; (100 - 127.5) * 1.2 + 127.5 = 94.5
    assert changed(contrast=0.8).apply(pixels).ravel().tolist() == [26, 106, 226]
    assert changed(contrast=1.2).apply(pixels).ravel().tolist() == [0, 95, 255]


@given(ANY, st.integers(1, 40), st.integers(1, 40))
def test_any_size_works(augmentation: Augmentation, width: int, height: int) -> None:
    pixels = draw_scene(width, height)
    augmented = augmentation.apply(pixels)
    x0, y0, x1, y1 = augmentation.view(width, height)
    assert 0 <= x0 < x1 <= width
    assert 0 <= y0 < y1 <= height
    assert augmented.shape == (y1 - y0, x1 - x0, 3)
    assert augmented.dtype == np.uint8
    assert augmented.flags.c_contiguous


def test_a_flipped_box_by_hand() -> None:
    boxes, kept = changed(flip=True).boxes([[10, 20, 30, 40], [0, 0, 100, 50]], 100, 50)
    assert boxes.tolist() == [[70, 20, 90, 40], [0, 0, 100, 50]]
    assert kept.tolist() == [True, True]


def test_boxes_are_clipped_and_dropped_when_half_is_gone() -> None:
    right = changed(zoom=0.75, x=1, y=1)  # of 100 x 100: what lies beyond 25
    boxes, kept = right.boxes(
        [[15, 50, 35, 60], [14, 50, 35, 60], [0, 0, 10, 10], [50, 50, 50, 60]], 100, 100
    )
    assert boxes.tolist() == [[0, 25, 10, 35], [0, 25, 10, 35], [0, 0, 0, 0], [25, 25, 25, 35]]
    assert kept.tolist() == [True, False, False, False]
    boxes, kept = right.boxes(np.zeros((0, 4)), 100, 100)
    assert (boxes.shape, kept.shape) == ((0, 4), (0,))


@given(ANY)
def test_boxes_follow_the_pixels(augmentation: Augmentation) -> None:
    pixels = np.zeros((60, 80, 3), np.uint8)
    pixels[25:31, 35:47] = 255
    ((x0, y0, x1, y1),), kept = augmentation.boxes([[35, 25, 47, 31]], 80, 60)
    rows, columns = np.nonzero(augmentation.apply(pixels)[..., 0] > 150)
    assert kept.all()
    assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (x0, y0, x1, y1)


@pytest.mark.parametrize(
    "boxes", [[1, 2, 3, 4], [[1, 2, 3]], [[5, 0, 4, 9]], [[0, 0, float("nan"), 9]]]
)
def test_impossible_boxes_are_refused(boxes: Any) -> None:
    with pytest.raises(ValueError, match="expected"):
        SAME.boxes(boxes, 10, 10)


@given(ANY)
def test_names_say_everything(augmentation: Augmentation) -> None:
    assert parse(augmentation.name) == augmentation
    assert parse(augmentation.name).name == augmentation.name


def test_a_name_by_hand() -> None:
    name = "flip=1,zoom=0.9123,x=0.2500,y=0.7500,brightness=1.1000,contrast=0.9500"
    assert parse(name) == Augmentation(True, 0.9123, 0.25, 0.75, 1.1, 0.95)
    assert parse(name).name == name
    assert changed(x=-0.0).name == SAME.name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "flip=2,zoom=1.0000,x=0.0000,y=0.0000,brightness=1.0000,contrast=1.0000",
        "flip=1,zoom=1.0,x=0.0000,y=0.0000,brightness=1.0000,contrast=1.0000",
        "flip=1,zoom=0.5000,x=0.0000,y=0.0000,brightness=1.0000,contrast=1.0000",
        "flip=1,zoom=1.0000,x=0.0000,y=0.0000,brightness=1.0000,contrast=1.0000\n",
        "flip=1,zoom=1.0000,y=0.0000,x=0.0000,brightness=1.0000,contrast=1.0000",
    ],
)
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        parse(name)


@pytest.mark.parametrize(
    "wrong",
    [
        {"flip": 1},
        {"zoom": 0.7},
        {"zoom": 0.91234},
        {"x": 1.1},
        {"y": float("nan")},
        {"brightness": True},
        {"contrast": "1"},
    ],
)
def test_impossible_augmentations_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        changed(**wrong)


def test_only_rgb_is_taken() -> None:
    with pytest.raises(ValueError, match="HWC uint8 RGB"):
        SAME.apply(np.zeros((4, 4), np.uint8))


def test_draws_are_repeatable_and_differ() -> None:
    assert draw(1, "ab", 0) == draw(1, "ab", 0)
    assert (
        len({draw(*one) for one in ((1, "ab", 0), (2, "ab", 0), (1, "ac", 0), (1, "ab", 1))}) == 4
    )


def test_draws_fill_their_ranges() -> None:
    drawn = [draw(0, f"{number:064x}", number) for number in range(400)]
    assert 0.4 < np.mean([one.flip for one in drawn]) < 0.6
    for name, low, high in (("zoom", 0.75, 1), ("x", 0, 1), ("y", 0, 1), ("contrast", 0.8, 1.2)):
        values = [getattr(one, name) for one in drawn]
        assert low <= min(values) < low + 0.02 * (high - low)
        assert high - 0.02 * (high - low) < max(values) <= high
    assert all(parse(one.name) == one for one in drawn)
