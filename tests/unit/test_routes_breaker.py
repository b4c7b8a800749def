"""The circuit breaker of an upstream's address, on a clock of the test's own."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.routes.breaker import Breaker, State
from server.routes.settings import BreakerSettings


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def build(**changes: Any) -> tuple[Breaker, Clock]:
    clock = Clock()
    values = {"consecutive": 3, "least_calls": 10, "ejection": 1.0, "longest_ejection": 8.0}
    settings = BreakerSettings(**(values | changes))
    return Breaker(settings, clock, lambda low, high: (low + high) / 2), clock


def one(breaker: Breaker, *, ok: bool) -> None:
    assert breaker.allows
    trial = breaker.begin()
    if ok:
        breaker.succeed(trial=trial)
    else:
        breaker.fail(trial=trial)


def test_failures_one_after_the_other_eject() -> None:
    breaker, _ = build()
    for _ in range(2):
        one(breaker, ok=False)
    one(breaker, ok=True)  # not in a row any more
    for _ in range(2):
        one(breaker, ok=False)
    assert breaker.state is State.CLOSED
    one(breaker, ok=False)
    assert breaker.state is State.OPEN
    assert not breaker.allows


def test_a_share_of_failures_ejects_though_none_follow_each_other() -> None:
    breaker, _ = build(consecutive=100, failure_rate=0.5)
    for index in range(9):
        one(breaker, ok=index % 2 == 0)
    assert breaker.state is State.CLOSED, "four of nine calls, and nine are too few"
    one(breaker, ok=False)
    assert breaker.state is State.OPEN


def test_what_is_older_than_the_window_does_not_count() -> None:
    breaker, clock = build(consecutive=100, window=5.0)
    for _ in range(9):
        one(breaker, ok=False)
    clock.now += 6
    for _ in range(9):
        one(breaker, ok=True)
    one(breaker, ok=False)
    assert breaker.state is State.CLOSED


def test_after_an_ejection_one_call_is_tried_and_closes_it() -> None:
    breaker, clock = build()
    for _ in range(3):
        one(breaker, ok=False)
    assert breaker.opens_in == pytest.approx(1.0)
    clock.now += 1.0
    assert breaker.state is State.HALF_OPEN
    trial = breaker.begin()
    assert trial
    assert not breaker.allows, "one at a time"
    breaker.succeed(trial=trial)
    assert breaker.state is State.CLOSED
    one(breaker, ok=False)
    assert breaker.state is State.CLOSED, "what was before the ejection is forgotten"


def test_a_trial_that_was_given_up_makes_room_for_another() -> None:
    breaker, clock = build()
    for _ in range(3):
        one(breaker, ok=False)
    clock.now += 1.0
    breaker.forget(trial=breaker.begin())
    assert breaker.allows


def test_a_trial_that_does_not_end_makes_room_for_another() -> None:
    breaker, clock = build()
    for _ in range(3):
        one(breaker, ok=False)
    clock.now += 1.0
    silent = breaker.begin()  # a stream whose caller sends nothing, say
    clock.now += 0.9
    assert not breaker.allows
    clock.now += 0.1
    assert breaker.allows
    second = breaker.begin()
    assert not breaker.allows
    breaker.forget(trial=silent)  # it was replaced: nothing that it tells counts any more
    assert not breaker.allows
    assert not breaker.fail(trial=silent)
    breaker.succeed(trial=silent)
    assert breaker.state is State.HALF_OPEN
    breaker.succeed(trial=second)
    assert breaker.state is State.CLOSED


def test_ejections_grow_up_to_the_longest_and_begin_anew_after_a_calm() -> None:
    breaker, clock = build()
    lasted = []
    for _ in range(3):
        one(breaker, ok=False)
    for _ in range(6):
        lasted.append(breaker.opens_in)
        clock.now += breaker.opens_in
        one(breaker, ok=False)  # the trial
    assert lasted == pytest.approx([1, 2, 4, 8, 8, 8])
    clock.now += breaker.opens_in
    one(breaker, ok=True)
    clock.now += 9
    for _ in range(3):
        one(breaker, ok=False)
    assert breaker.opens_in == pytest.approx(1)


def test_what_began_before_an_ejection_neither_ends_nor_prolongs_it() -> None:
    breaker, clock = build()
    before = [breaker.begin() for _ in range(2)]
    for _ in range(3):
        one(breaker, ok=False)
    breaker.succeed(trial=before[0])
    assert breaker.state is State.OPEN
    until = breaker.opens_in
    assert not breaker.fail(trial=before[1])
    assert breaker.opens_in == until
    clock.now += 1
    assert breaker.state is State.HALF_OPEN


def test_ejections_are_spread() -> None:
    settings = BreakerSettings(consecutive=1, ejection=10.0, longest_ejection=10.0)
    lasting = set()
    for _ in range(20):
        breaker = Breaker(settings)
        breaker.fail(trial=breaker.begin())
        lasting.add(breaker.opens_in)
    assert len(lasting) > 10
    assert all(7.9 < seconds <= 12 for seconds in lasting)


@given(st.lists(st.tuples(st.sampled_from("sfx"), st.floats(0, 5)), max_size=200))
def test_whatever_happens_it_recovers(steps: list[tuple[str, float]]) -> None:
    breaker, clock = build()
    under_way: list[int] = []
    for what, seconds in steps:
        clock.now += seconds
        if breaker.allows:
            under_way.append(breaker.begin())
        trials = [trial for trial in under_way if trial]
        assert len(set(trials)) == len(trials)
        if under_way:
            trial = under_way.pop(0)
            {"s": breaker.succeed, "f": breaker.fail, "x": breaker.forget}[what](trial=trial)
    for trial in under_way:
        breaker.forget(trial=trial)
    clock.now += 100
    assert breaker.allows
    breaker.succeed(trial=breaker.begin())
    assert breaker.state is State.CLOSED
