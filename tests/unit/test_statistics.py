"""What labelling, serving and measuring share, against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from utility_gate.statistics import Interval, softmax, to_interval


def test_an_interval_holds_95_percent_of_the_resampled_values() -> None:
    resampled = np.arange(1001.0)  # 0 to 1000: the quantiles are 25 and 975
    assert to_interval(7, np.random.default_rng(0).permutation(resampled)) == Interval(7, 25, 975)
    assert to_interval(0.5, [0.25]) == Interval(0.5, 0.25, 0.25)


def test_values_that_are_not_finite_have_no_say() -> None:
    resampled = [math.nan, 1.0, math.inf, 1.0, -math.inf]
    assert to_interval(math.nan, resampled).low == to_interval(0, resampled).high == 1
    for nothing in ([], [math.nan]):
        bounds = to_interval(1.5, nothing)
        assert bounds.value == 1.5
        assert math.isnan(bounds.low)
        assert math.isnan(bounds.high)


def test_an_interval_is_of_pythons_own_numbers() -> None:
    bounds = to_interval(np.float64(1), np.ones(3))
    assert [type(x) for x in (bounds.value, bounds.low, bounds.high)] == [float] * 3


@pytest.mark.parametrize("shape", [(4,), (3, 4), (2, 3, 4)])
def test_softmax_is_over_the_last_axis_in_float64(shape: tuple[int, ...]) -> None:
    logits = np.random.default_rng(1).normal(0, 300, shape).astype(np.float32)
    said = softmax(logits, 2.0)
    assert (said.shape, said.dtype) == (shape, np.float64)
    np.testing.assert_allclose(said.sum(-1), 1)
    rows = zip(logits.reshape(-1, 4), said.reshape(-1, 4), strict=True)
    for row, probabilities in rows:
        np.testing.assert_array_equal(softmax(row[None], 2.0)[0], probabilities)


def test_softmax_by_hand() -> None:
    assert softmax(np.array([0, 0])).tolist() == [0.5, 0.5]
    assert softmax(np.array([0.0, 2 * math.log(3)]), 2.0).tolist() == pytest.approx([0.25, 0.75])
