"""Time and waiting as values that are handed in, so that tests need neither."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    def now(self) -> datetime:
        """The wall clock, UTC, without zone (every time in journal and ledger is naive UTC)."""

    def monotonic(self) -> float:
        """Seconds that never run backwards: for durations."""

    def sleep(self, seconds: float, unless: threading.Event | None = None) -> None:
        """Ends at once when the event is set, before or meanwhile."""


class SystemClock:
    def now(self) -> datetime:
        return datetime.now(UTC).replace(tzinfo=None)

    def monotonic(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float, unless: threading.Event | None = None) -> None:
        if unless is None:
            time.sleep(seconds)
        else:
            unless.wait(seconds)
