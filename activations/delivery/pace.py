"""How many requests one run keeps in flight: as many as the destination answers without trouble.

The rule is that of TCP. It starts with a few and doubles with every round trip until the first sign of trouble; from
then on it grows by one per round trip and halves when a request is throttled, fails or stays without an answer. Slow
answers are a sign too, but a weak one: they stop the growth, and take one per round trip away.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from activations.clock import Clock

AHEAD = 0.25
"""Batches made ready beyond the requests in flight, as a share of them: committing an intent takes about so much of a
request's time."""
FIRST = 4
"""Requests in flight at the start. Slow answers alone never push it below this."""
SLOW = 2.0
SLACK = 0.25
"""An answer is slow when it takes SLOW times the usual and SLACK seconds: under that, noise looks like load."""
_SMOOTHING = 0.2
_AGEING = 0.1
"""A round trip's share in the best time, which drifts towards what is seen: who stays slower is not slow for ever."""


class Pace:
    """Never more than `most` at once and never less than one. Shared by all workers of a run. `ahead` is the share of
    batches that may be made ready beyond those in flight."""

    def __init__(self, most: int, clock: Clock, *, ahead: float = 0.0) -> None:
        self._most, self._clock, self._ahead = most, clock, ahead
        self._limit = float(min(FIRST, most))
        self._ceiling_is_known = False
        self._cut_at = float("-inf")
        self._best = self._smoothed = 0.0
        self._mutex = threading.Lock()
        self._in_flight = _Room(lambda: self.limit, self._mutex)
        self._at_work = _Room(lambda: self.limit + math.ceil(self.limit * ahead), self._mutex)

    @property
    def limit(self) -> int:
        """Requests that may be in flight now."""
        return int(self._limit)

    def work(self) -> AbstractContextManager[None]:
        """Within this block the caller makes a batch ready and sends it; waits until there is room."""
        return self._at_work.taken()

    def turn(self) -> AbstractContextManager[None]:
        """Within this block the caller is one of those in flight; waits until there is room. Where nothing is made ready
        ahead, whoever is at work has its turn: were the pace cut meanwhile, a place in a rate would be used too late."""
        return self._in_flight.taken() if self._ahead else nullcontext()

    def answered(self, started: float) -> None:
        """A request that left at `started` (monotonic) had a clear answer."""
        with self._mutex:
            before = self.limit
            self._learn(self._clock.monotonic() - started)
            if self._is_slow():
                self._ceiling_is_known = True
                self._limit = max(self._limit - 1 / self._limit, min(FIRST, self._limit))
            else:
                step = 1 / self._limit if self._ceiling_is_known else 1.0
                self._limit = min(self._limit + step, float(self._most))
            if self.limit > before:
                self._in_flight.has_grown()
                self._at_work.has_grown()

    def trouble(self, started: float) -> None:
        """A request that left at `started` was throttled, failed, or has no answer."""
        with self._mutex:
            self._ceiling_is_known = True
            if started >= self._cut_at:  # what left before the last cut says nothing about the pace since
                self._cut_at = self._clock.monotonic()
                self._limit = max(self._limit / 2, 1.0)

    def _learn(self, seconds: float) -> None:
        self._smoothed += (seconds - self._smoothed) * (_SMOOTHING if self._smoothed else 1.0)
        if seconds < self._best or not self._best:
            self._best = seconds
        else:
            self._best += (seconds - self._best) * _AGEING / self._limit

    def _is_slow(self) -> bool:
        return self._smoothed > self._best * SLOW + SLACK


class _Room:
    """Room for as many as `most` says at the moment."""

    def __init__(self, most: Callable[[], int], mutex: threading.Lock) -> None:
        self._most, self._inside = most, 0
        self._changed = threading.Condition(mutex)

    @contextmanager
    def taken(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: self._inside < self._most())
            self._inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._changed.notify()

    def has_grown(self) -> None:
        self._changed.notify()
