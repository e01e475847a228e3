"""One account, one rate and one Retry-After, however many processes call it."""

from __future__ import annotations

import subprocess
import sys
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from activations.clock import SystemClock
from activations.delivery.rate import LONGEST_PATIENCE, RateLimiter, retry_after
from activations.journal import Journal
from activations.journal.sqlite import SQLiteStore
from activations.model import Response
from tests.engine.world import (
    FakeClock,
)

CALLER = """
import sys
from functools import partial
from itertools import pairwise
from pathlib import Path
from activations.clock import SystemClock
from activations.delivery.rate import RateLimiter
from tests.transport.test_rate import open_journal

journal = open_journal(Path(sys.argv[1]))
clock = SystemClock()
limiter = RateLimiter(
    100.0, clock, reserve=partial(journal.reserve, "hook"), not_before=partial(journal.not_before, "hook"), chunk=8
)
print("ready", flush=True)
sys.stdin.readline()
for _ in range(40):
    limiter.wait()
    print(clock.monotonic(), flush=True)
"""


def open_journal(path: Path) -> Journal:
    return Journal(SQLiteStore(path), audit_key=b"k", key_check="c", now=SystemClock().now)


class Places:
    """What a journal does for `reserve`, in memory."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock, self.following = clock, clock.moment
        self.asked: list[int] = []

    def __call__(self, requests: int, interval: float) -> datetime:
        self.asked.append(requests)
        first = max(self.clock.now(), self.following)
        self.following = first + timedelta(seconds=requests * interval)
        return first


def test_two_processes_together_stay_below_the_rate(tmp_path: Path) -> None:
    """Real processes, real time, one journal file: 80 requests at 100 a second."""
    journal = tmp_path / "journal.sqlite3"
    open_journal(journal).close()
    callers = [
        subprocess.Popen(
            [sys.executable, "-c", CALLER, str(journal)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        for _ in range(2)
    ]
    for caller in callers:
        assert caller.stdout is not None
        assert caller.stdout.readline() == "ready\n"
    said = [caller.communicate("go\n", timeout=30)[0] for caller in callers]
    left = sorted(float(line) for text in said for line in text.split())
    assert len(left) == 80
    # n requests span at least n - 1 intervals, less the interval by which each end may have been late.
    for n, moment in enumerate(left):
        for later in range(n + 10, len(left), 10):
            assert left[later] - moment >= (later - n - 2) * 0.01 - 0.005
    assert left[-1] - left[0] < 5


def test_requests_leave_evenly_and_places_are_asked_for_a_few_at_a_time() -> None:
    clock = FakeClock()
    places = Places(clock)
    limiter = RateLimiter(10.0, clock, reserve=places, chunk=4)
    left = []
    for _ in range(12):
        assert limiter.wait() == 0
        left.append(clock.monotonic())
    assert places.asked == [4, 4, 4]
    for earlier, later in pairwise(left):
        assert later - earlier == pytest.approx(0.1, abs=0.02)


def test_never_more_than_a_seconds_worth_is_taken() -> None:
    clock = FakeClock()
    places = Places(clock)
    RateLimiter(2.0, clock, reserve=places, chunk=16).wait()
    RateLimiter(0.1, clock, reserve=places, chunk=16).wait()
    assert places.asked == [2, 1]


def test_a_place_that_was_not_used_in_time_is_lost() -> None:
    """Used later it would double what somebody else sends then."""
    clock = FakeClock()
    places = Places(clock)
    limiter = RateLimiter(10.0, clock, reserve=places, chunk=8)
    limiter.wait()
    clock.sleep(60)
    left = []
    for _ in range(8):
        limiter.wait()
        left.append(clock.monotonic())
    assert left[-1] - left[0] >= 0.6
    assert places.asked == [8, 8]


def test_without_a_rate_nothing_is_asked_for_and_nobody_waits() -> None:
    clock = FakeClock()
    places = Places(clock)
    limiter = RateLimiter(None, clock, reserve=places)
    started = clock.monotonic()
    for _ in range(100):
        assert limiter.wait() == 0
    assert places.asked == []
    assert clock.monotonic() - started < 1


def test_what_another_process_was_told_is_obeyed_within_a_second() -> None:
    clock = FakeClock()
    told: list[datetime] = []
    looks = 0

    def not_before() -> datetime | None:
        nonlocal looks
        looks += 1
        return told[0] if told else None

    limiter = RateLimiter(None, clock, reserve=Places(clock), not_before=not_before)
    for _ in range(100):
        limiter.wait()
    assert looks == 1
    told.append(clock.now() + timedelta(seconds=20))
    clock.sleep(1)
    assert limiter.wait() == 0
    assert clock.now() >= told[0]


def test_a_longer_wait_than_a_run_has_patience_for_is_reported_at_once() -> None:
    clock = FakeClock()
    limiter = RateLimiter(5.0, clock, reserve=Places(clock))
    limiter.postpone(600)
    started = clock.monotonic()
    assert LONGEST_PATIENCE < limiter.wait() <= 600
    assert clock.monotonic() - started < 1


def test_a_shorter_wait_does_not_end_a_longer_one() -> None:
    clock = FakeClock()
    limiter = RateLimiter(None, clock, reserve=Places(clock))
    started = clock.monotonic()
    limiter.postpone(20)
    limiter.postpone(1)
    limiter.wait()
    assert clock.monotonic() - started >= 20


def test_what_another_process_was_told_while_we_waited_for_our_place_is_obeyed() -> None:
    clock = FakeClock()
    started = clock.moment
    places = Places(clock)
    places.following = started + timedelta(seconds=14)
    wanted = started + timedelta(seconds=25)

    def told() -> datetime | None:
        """Somebody is told, after we asked and before our place has come."""
        return wanted if clock.moment > started + timedelta(seconds=5) else None

    assert RateLimiter(10.0, clock, reserve=places, not_before=told, chunk=1).wait() == 0
    assert clock.moment >= wanted


def test_waiting_workers_hear_of_a_retry_after() -> None:
    clock = FakeClock()
    limiter = RateLimiter(1.0, clock, reserve=lambda *_: clock.now())
    limiter.wait()
    started = clock.monotonic()
    asleep = clock.sleep

    def told_meanwhile(seconds: float, *_: object) -> None:
        clock.sleep = asleep  # type: ignore[method-assign]
        limiter.postpone(30)
        asleep(seconds)

    clock.sleep = told_meanwhile  # type: ignore[method-assign]
    limiter.wait()
    assert clock.monotonic() - started >= 30


@pytest.mark.parametrize("value", ["²", "", "soon", "Wed, 99 Foo", "99999999999999999999999"])
def test_no_retry_after_breaks_the_run(value: str) -> None:
    response = Response(status=429, headers={"retry-after": value})
    assert 0 <= retry_after(response, FakeClock().now(), default=1.0) <= 3600
