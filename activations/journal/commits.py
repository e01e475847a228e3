"""Group commit: what several threads want written becomes durable by one commit.

A commit waits for the disk, and every statement hands Python's lock to somebody else and has to get it back; sixteen
workers that do this one after the other wait for each other longer than for the network. So whoever comes first
commits for all who came meanwhile.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class _Write(Generic[T]):
    """Something to do inside a transaction, and what came of it."""

    def __init__(self, work: Callable[[], T]) -> None:
        self._work = work
        self._result: T | None = None
        self._error: BaseException | None = None
        self.is_over = False
        self.call = threading.Event()
        """Set when the work is over, or when its thread is the one that commits next."""

    def run(self) -> None:
        self._result = self._work()

    def fail(self, error: BaseException) -> None:
        self._error = error

    def result(self) -> Any:
        if self._error is not None:
            raise self._error
        return self._result


class GroupCommit:
    """Runs every piece of work exactly once with effect, inside a transaction of `begin`.

    Nobody is woken in vain: a thread is called when its work is durable, or when it has to commit for those that wait.
    """

    def __init__(self, begin: Callable[[], AbstractContextManager[None]]) -> None:
        self._begin = begin
        self._mutex = threading.Lock()
        self._waiting: list[_Write[Any]] = []
        self._is_busy = False

    def do(self, work: Callable[[], T]) -> T:
        """Returns what `work` returned, once it is durable; raises what it raised, and then nothing of it is."""
        write = _Write(work)
        with self._mutex:
            self._waiting.append(write)
            must_wait, self._is_busy = self._is_busy, True
        if must_wait:
            write.call.wait()
        if not write.is_over:
            self._commit()
        result: T = write.result()
        return result

    def _commit(self) -> None:
        with self._mutex:
            group, self._waiting = self._waiting, []
        try:
            self._together(group)
        except BaseException as error:
            for write in group:
                write.fail(error)
            raise
        finally:
            for write in group:
                write.is_over = True
                write.call.set()
            self._hand_on()

    def _hand_on(self) -> None:
        with self._mutex:
            self._is_busy = bool(self._waiting)
            if self._is_busy:
                self._waiting[0].call.set()

    def _together(self, group: Sequence[_Write[Any]]) -> None:
        """One that fails takes nobody with it: then each has a transaction of its own."""
        try:
            with self._begin():
                for write in group:
                    write.run()
        except Exception as error:
            if len(group) == 1:
                group[0].fail(error)
                return
            for write in group:
                self._together([write])
