"""How many requests are in flight: quick to grow, quick to give way, never none and never too many."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress

from hypothesis import given, settings
from hypothesis import strategies as st

from activations.delivery.pace import FIRST, Pace


class Clock:
    def __init__(self) -> None:
        self.time = 1.0

    def monotonic(self) -> float:
        return self.time


def a_pace(most: int = 64, ahead: float = 0.0) -> tuple[Pace, Clock]:
    clock = Clock()
    return Pace(most, clock, ahead=ahead), clock  # type: ignore[arg-type]


def round_trip(pace: Pace, clock: Clock, *, seconds: float = 0.02, trouble: bool = False) -> int:
    """As many requests as are allowed leave together and are answered together; how many they were."""
    started, requests = clock.time, pace.limit
    clock.time += seconds
    for _ in range(requests):
        (pace.trouble if trouble else pace.answered)(started)
    return requests


def test_it_starts_with_a_few_and_doubles_until_the_bound() -> None:
    pace, clock = a_pace(most=50)
    assert [round_trip(pace, clock) for _ in range(6)] == [4, 8, 16, 32, 50, 50]


def test_a_bound_below_the_start_holds() -> None:
    pace, clock = a_pace(most=2)
    assert [round_trip(pace, clock) for _ in range(3)] == [2, 2, 2]


def test_trouble_halves_once_a_round_trip_however_many_requests_met_it() -> None:
    pace, clock = a_pace()
    while pace.limit < 64:
        round_trip(pace, clock)
    seen = [round_trip(pace, clock, trouble=True) for _ in range(8)]
    assert seen == [64, 32, 16, 8, 4, 2, 1, 1]


def test_it_recovers_by_one_a_round_trip() -> None:
    pace, clock = a_pace()
    while pace.limit < 64:
        round_trip(pace, clock)
    round_trip(pace, clock, trouble=True)
    seen = [round_trip(pace, clock) for _ in range(10)]
    assert seen[0] == 32
    assert 40 <= seen[-1] <= 42
    for _ in range(40):
        round_trip(pace, clock)
    assert pace.limit == 64


def test_one_trouble_at_one_in_flight_is_not_the_end() -> None:
    pace, clock = a_pace()
    for _ in range(5):
        round_trip(pace, clock, trouble=True)
    assert [round_trip(pace, clock) for _ in range(4)] == [1, 2, 2, 3]


def test_answers_that_slow_down_stop_the_growth_and_shrink_it_gently() -> None:
    pace, clock = a_pace()
    for _ in range(4):
        round_trip(pace, clock)
    before = pace.limit
    for _ in range(3):
        round_trip(pace, clock, seconds=1.5)
    assert before - 4 <= pace.limit < before
    assert pace.limit >= FIRST


def test_slowness_that_stays_becomes_the_usual() -> None:
    pace, clock = a_pace(most=16)
    for _ in range(4):
        round_trip(pace, clock)
    for _ in range(40):
        round_trip(pace, clock, seconds=1.5)
    assert pace.limit == 16


def test_noise_of_a_quick_receiver_is_not_load() -> None:
    pace, clock = a_pace(most=16)
    for _ in range(50):
        for seconds in (0.001, 0.02, 0.2):
            round_trip(pace, clock, seconds=seconds)
    assert pace.limit == 16


steps = st.lists(st.tuples(st.booleans(), st.floats(0, 100), st.floats(0, 100)), max_size=200)


@settings(max_examples=200)
@given(st.integers(1, 64), steps)
def test_never_above_the_bound_and_never_none(most: int, steps: list[tuple[bool, float, float]]) -> None:
    pace, clock = a_pace(most)
    for trouble, took, pause in steps:
        started = clock.time
        clock.time += took
        (pace.trouble if trouble else pace.answered)(started)
        clock.time += pause
        assert 1 <= pace.limit <= most


def test_no_more_workers_than_the_limit_are_at_it_together() -> None:
    pace, _ = a_pace(most=3)
    lock, inside, most = threading.Lock(), 0, 0

    def work() -> None:
        nonlocal inside, most
        for _ in range(20):
            with pace.work(), pace.turn():
                with lock:
                    inside += 1
                    most = max(most, inside)
                time.sleep(0.0005)
                with lock:
                    inside -= 1

    workers = [threading.Thread(target=work) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert (most, inside) == (3, 0)


def test_a_turn_that_fails_is_given_back() -> None:
    pace, _ = a_pace(most=1, ahead=0.25)
    for place in (pace.work, pace.turn):
        with suppress(ValueError), place():
            raise ValueError
    assert (_who_comes_in(pace.turn), _who_comes_in(pace.work)) == (1, 2)


def test_it_costs_microseconds() -> None:
    pace, _ = a_pace(ahead=0.25)
    started = time.process_time()
    for _ in range(5000):
        with pace.work(), pace.turn():
            pace.answered(1.0)
    assert (time.process_time() - started) / 5000 < 50e-6


def test_so_many_more_may_be_made_ready_as_its_share_says_and_fewer_after_trouble() -> None:
    pace, clock = a_pace(most=8, ahead=0.25)
    for _ in range(3):
        round_trip(pace, clock)
    assert (_who_comes_in(pace.turn), _who_comes_in(pace.work)) == (8, 10)
    round_trip(pace, clock, trouble=True)
    assert (_who_comes_in(pace.turn), _who_comes_in(pace.work)) == (4, 5)


def test_without_a_share_nothing_is_made_ready_before_it_may_leave() -> None:
    pace, _ = a_pace()
    assert _who_comes_in(pace.work) == FIRST


def test_without_a_share_who_is_at_work_has_its_turn_though_the_pace_is_cut_meanwhile() -> None:
    """A place in a rate is for a moment."""
    pace, clock = a_pace()
    with pace.work(), pace.work():
        for _ in range(3):
            clock.time += 1
            pace.trouble(clock.time)
        assert pace.limit == 1
        with pace.turn(), pace.turn():
            pass


def _who_comes_in(place: Callable[[], AbstractContextManager[None]]) -> int:
    """How many are inside at once, when many more want to."""
    inside, leave = [], threading.Event()

    def visit() -> None:
        with place():
            inside.append(1)
            leave.wait(10)

    visitors = [threading.Thread(target=visit, daemon=True) for _ in range(16)]
    for visitor in visitors:
        visitor.start()
    time.sleep(0.05)
    found = len(inside)
    leave.set()
    for visitor in visitors:
        visitor.join(1)  # who never comes in stays outside for good
    return found
