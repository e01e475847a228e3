"""How fast an account may be called, and how long it wants to be left alone."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from activations.clock import Clock
from activations.model import Response

LONGEST_RETRY_AFTER = 3600.0


class RateLimiter:
    """At most `rate` requests a second, evenly spaced, shared by all workers of a run; None is no limit."""

    def __init__(self, rate: float | None, clock: Clock) -> None:
        self._interval = 1.0 / rate if rate else 0.0
        self._clock, self._mutex = clock, threading.Lock()
        self._next = clock.monotonic()

    def wait(self) -> None:
        """Sleep until the next request may leave."""
        while (
            delay := self._try()
        ) > 0:  # looked at again after the sleep: somebody may have been told to wait
            self._clock.sleep(delay)

    def _try(self) -> float:
        """0 and the place is taken, or how long to wait before trying again."""
        with self._mutex:
            delay = self._next - self._clock.monotonic()
            if delay <= 0:
                self._next = max(self._next, self._clock.monotonic() - self._interval) + self._interval
            return max(delay, 0.0)

    def postpone(self, seconds: float) -> None:
        """Nobody's next request leaves earlier than this."""
        with self._mutex:
            self._next = max(self._next, self._clock.monotonic() + seconds)


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
