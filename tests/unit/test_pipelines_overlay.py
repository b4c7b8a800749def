"""Activation maps over images."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipelines.overlay import LONGEST, MOST_BYTES, SHORTEST, draw, longest_for, seen
from tests.checkpoints import GREY, plain
from utility_gate.preprocess import Preprocess


def opened(png: bytes) -> np.ndarray:
    image = Image.open(io.BytesIO(png))
    assert image.format == "PNG"
    return np.asarray(image.convert("RGB")).astype(int)


def one_hot(row: int, column: int, side: int = 4) -> np.ndarray:
    activation = np.zeros((side, side), np.float32)
    activation[row, column] = 1
    return activation


@pytest.mark.parametrize(
    ("width", "height", "size"),
    [
        (300, 200, (300, 200)), (1024, 512, (512, 256)), (100, 50, (224, 112)), (1, 1, (224, 224)),
        (5000, 3, (512, 1)), (512, 512, (512, 512)), (223, 223, (224, 224)),
    ],
)  # fmt: skip
def test_an_overlay_has_a_sensible_size(width: int, height: int, size: tuple[int, int]) -> None:
    pixels = plain(GREY, width, height)
    assert opened(draw(pixels, one_hot(0, 0))).shape == (size[1], size[0], 3)


def test_the_map_glows_where_it_is_high_and_the_image_shows_where_it_is_low() -> None:
    drawn = opened(draw(plain(GREY), one_hot(0, 3)))
    change = np.abs(drawn - 128).sum(2)
    assert change[32, 224] > 100, "the centre of the hot cell"
    assert change[128:, :].max() == 0, "far from it nothing is changed"
    # Between two cells it fades; there is no step.
    assert np.abs(np.diff(change[32].astype(int))).max() < 25
    assert change[32, 180] < change[32, 200] < change[32, 224]


def test_colours_rise_in_lightness_with_the_map() -> None:
    ramp = np.linspace(0, 1, 64, dtype=np.float32)[None, :]
    drawn = opened(draw(plain((0, 0, 0), 256, 8), ramp))
    luma = drawn[4] @ [0.299, 0.587, 0.114]
    assert (np.diff(luma) >= -1).all()
    assert luma[-1] > 120


def test_only_differences_of_the_map_count() -> None:
    pixels = plain(GREY, 64, 64)
    one = one_hot(1, 1)
    assert draw(pixels, one) == draw(pixels, one * 1000 - 7000)
    assert draw(pixels, one) != draw(pixels, -one)


@pytest.mark.parametrize("value", [0.0, 5.0, -3e38, float("nan"), float("inf")])
def test_a_map_that_says_nothing_shows_the_image(value: float) -> None:
    drawn = opened(draw(plain(GREY), np.full((4, 4), value, np.float32)))
    assert (drawn == 128).all()
    broken = one_hot(0, 0)
    broken[1, 1] = np.nan
    assert (opened(draw(plain(GREY), broken)) == 128).all()
    assert opened(draw(plain(GREY), one_hot(0, 0) * np.float32(3e38))).max() > 128


@pytest.mark.parametrize(
    ("pixels", "activation"),
    [
        (np.zeros((4, 4), np.uint8), np.zeros((2, 2), np.float32)),
        (np.zeros((4, 4, 3), np.float32), np.zeros((2, 2), np.float32)),
        (np.zeros((4, 4, 3), np.uint8), np.zeros((1, 2, 2), np.float32)),
        (np.zeros((4, 4, 3), np.uint8), np.zeros((0, 2), np.float32)),
    ],
)
def test_other_shapes_are_refused(pixels: np.ndarray, activation: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected"):
        draw(pixels, activation)


@pytest.mark.parametrize("count", [1, 4, 18, 27, 100])
def test_all_overlays_of_an_answer_fit_into_a_message(count: int) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (600, 600, 3), dtype=np.uint8)
    longest = longest_for(count)
    assert 64 < longest <= LONGEST
    assert count * len(draw(noise, one_hot(0, 0), longest)) <= MOST_BYTES
    assert longest_for(1) == LONGEST


@given(
    width=st.integers(1, 1500), height=st.integers(1, 1500), longest=st.integers(1, LONGEST),
    rows=st.integers(1, 9), columns=st.integers(1, 9),
)  # fmt: skip
@settings(max_examples=30, deadline=None)
def test_any_image_and_map_make_an_overlay(
    width: int, height: int, longest: int, rows: int, columns: int
) -> None:
    activation = np.random.default_rng(0).normal(size=(rows, columns)).astype(np.float32)
    drawn = opened(draw(plain(GREY, width, height), activation, longest))
    assert max(drawn.shape[:2]) == min(max(width, height, SHORTEST), longest)


def test_what_is_seen_is_the_central_square_of_a_network_that_crops() -> None:
    pixels = np.arange(60 * 100 * 3, dtype=np.uint32).reshape(60, 100, 3).astype(np.uint8)
    assert seen(pixels, Preprocess(32, 32, fit="stretch")) is pixels
    cropped = seen(pixels, Preprocess(48, 32))
    assert cropped.shape == (40, 40, 3)
    np.testing.assert_array_equal(cropped, pixels[10:50, 30:70])
