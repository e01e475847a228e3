"""How fast an account may be called, and how long it wants to be left alone.

Both belong to the account, not to the run: every process that calls it takes its places from the same journal and reads
the same Retry-After there.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from activations.clock import Clock
from activations.model import Response

LONGEST_RETRY_AFTER = 3600.0

LONGEST_PATIENCE = 30.0
"""Seconds a run waits for a throttled destination; a longer wait is left to the next run."""

LOOK_EVERY = 1.0
"""Seconds between two looks at what other processes were told."""

Reserve = Callable[[int, float], datetime]
"""`reserve(requests, interval)`: so many evenly spaced places for nobody else; the moment of the first."""


class RateLimiter:
    """At most `rate` requests a second for an account, evenly spaced, whoever sends them; None is no limit.

    Places are taken a second's worth at a time, at most `chunk`. One that is not used in its own interval is lost:
    used later it would meet somebody else's.
    """

    def __init__(
        self,
        rate: float | None,
        clock: Clock,
        *,
        reserve: Reserve,
        not_before: Callable[[], datetime | None] = lambda: None,
        chunk: int = 1,
    ) -> None:
        self._interval = 1.0 / rate if rate else 0.0
        self._chunk = max(1, min(int(rate or 1), chunk))
        self._clock, self._reserve, self._told_elsewhere = clock, reserve, not_before
        self._places: deque[float] = deque()
        self._not_before = float("-inf")
        self._looked_at = float("-inf")
        self._mutex = threading.Lock()

    def wait(self, stop: threading.Event | None = None) -> float:
        """Sleep until the next request may leave, and return 0. When the destination wants to be left alone for longer
        than a run waits, return how long instead, at once. A `stop` that is set ends the waiting, and then nothing
        may leave."""
        while (pause := self._pause()) <= LONGEST_PATIENCE:
            self._clock.sleep(max(pause, 0.0), stop)
            place = self._take()
            self._clock.sleep(max(place - self._clock.monotonic(), 0.0), stop)
            # Meanwhile somebody may have been told to wait: a worker of this run, or another process.
            if (stop and stop.is_set()) or (self._pause() <= 0.0 and self._not_before <= place):
                return 0.0
        return pause

    def look_again(self) -> None:
        """Another process was told something since the last look."""
        with self._mutex:
            self._looked_at = float("-inf")

    def is_free(self) -> bool:
        """Whether the destination may be called now, as far as anybody was told."""
        return self._pause() <= 0.0

    def postpone(self, seconds: float) -> None:
        """Nobody's next request leaves earlier than this."""
        with self._mutex:
            now = self._clock.monotonic()
            if now + seconds > max(now, self._not_before):
                self._not_before = now + seconds
                self._places.clear()

    def _pause(self) -> float:
        """Seconds until the destination may be called again."""
        now = self._clock.monotonic()
        with self._mutex:
            is_due = now - self._looked_at >= LOOK_EVERY
            if is_due:
                self._looked_at = now
        if is_due and (until := self._told_elsewhere()):
            self.postpone((until - self._clock.now()).total_seconds())
        return self._not_before - now

    def _take(self) -> float:
        """The monotonic time of a place that is now ours."""
        with self._mutex:
            now = self._clock.monotonic()
            if not self._interval:
                return now
            while self._places and self._places[0] + self._interval < now:
                self._places.popleft()
            if not self._places:
                self._places.extend(self._more(now))
            return self._places.popleft()

    def _more(self, now: float) -> list[float]:
        first = self._reserve(self._chunk, self._interval)
        start = now + (first - self._clock.now()).total_seconds()
        return [start + n * self._interval for n in range(self._chunk)]


def retry_after(response: Response, now: datetime, default: float) -> float:
    """Seconds the answer asks to wait: `Retry-After` as seconds or as a date, bounded; `default` when it says nothing."""
    value = response.headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return min(float(value), LONGEST_RETRY_AFTER)
    try:
        moment = parsedate_to_datetime(value).astimezone(UTC).replace(tzinfo=None)
    except (TypeError, ValueError, OverflowError):
        return default
    return min(max((moment - now).total_seconds(), 0.0), LONGEST_RETRY_AFTER)
