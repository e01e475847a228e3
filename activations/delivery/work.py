"""What is still to be sent, shared by the workers of one delivery."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from activations.journal import Span


@dataclass(frozen=True, slots=True)
class Work:
    """A span, and how often it provably was not accepted."""

    span: Span
    tries: int = 0

    def halves(self) -> tuple[Work, Work]:
        first, second = self.span.halves()
        return Work(first), Work(second)


class WorkQueue:
    """Spans in order. A worker may put work back, so the queue ends only when nobody is at work any more."""

    def __init__(self, spans: Iterable[Span]) -> None:
        self._waiting = deque(Work(span) for span in spans)
        self._changed = threading.Condition()
        self._active = 0

    def take(self) -> Work | None:
        """The next work; None when everything is done. Every `take` is followed by one `finish`."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or not self._active)
            if not self._waiting:
                return None
            self._active += 1
            return self._waiting.popleft()

    def put_back(self, *work: Work) -> None:
        """To the front, in this order."""
        with self._changed:
            self._waiting.extendleft(reversed(work))
            self._changed.notify_all()

    def finish(self) -> None:
        with self._changed:
            self._active -= 1
            self._changed.notify_all()

    def drain(self) -> int:
        """Take everything away that nobody works on; the number of rows."""
        with self._changed:
            rows = sum(work.span.count for work in self._waiting)
            self._waiting.clear()
            self._changed.notify_all()
            return rows
