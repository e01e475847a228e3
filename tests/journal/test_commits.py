"""One commit for several threads: durable for each, and nobody pays for another's mistake."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from activations.journal.commits import GroupCommit


class Disk:
    """What is durable, and how often a transaction was committed. The first one waits until somebody opens the gate."""

    def __init__(self) -> None:
        self.durable: list[int] = []
        self.commits = 0
        self.error: BaseException | None = None
        self.is_asked, self.gate = threading.Event(), threading.Event()
        self._pending: list[int] = []

    @contextmanager
    def begin(self) -> Iterator[None]:
        self._pending = []
        self.is_asked.set()
        yield
        self.gate.wait(5)
        if self.error:
            raise self.error
        self.durable += self._pending
        self.commits += 1

    def write(self, number: int) -> int:
        self._pending.append(number)
        return number * 10


@pytest.fixture
def disk() -> Disk:
    return Disk()


def together(disk: Disk, works: list[Callable[[], int]]) -> list[int | BaseException]:
    """The first commits alone; the others have come while it was waiting for the disk."""
    commits = GroupCommit(disk.begin)

    def result(work: Callable[[], int]) -> int | BaseException:
        try:
            return commits.do(work)
        except BaseException as error:
            return error

    with ThreadPoolExecutor(len(works)) as threads:
        first = threads.submit(result, works[0])
        disk.is_asked.wait(5)
        others = [threads.submit(result, work) for work in works[1:]]
        while len(commits._waiting) < len(others):
            pass
        disk.gate.set()
        return [future.result() for future in (first, *others)]


def writes(disk: Disk, count: int) -> list[Callable[[], int]]:
    return [lambda n=n: disk.write(n) for n in range(count)]  # type: ignore[misc]


def test_everybody_gets_their_own_result_from_two_commits(disk: Disk) -> None:
    assert together(disk, writes(disk, 8)) == [n * 10 for n in range(8)]
    assert sorted(disk.durable) == list(range(8))
    assert disk.commits == 2


def test_one_that_fails_takes_nobody_with_it(disk: Disk) -> None:
    def fails() -> int:
        disk.write(99)
        raise ValueError("mine alone")

    works = writes(disk, 6)
    works[3] = fails
    results = together(disk, works)
    assert isinstance(results.pop(3), ValueError)
    assert results == [0, 10, 20, 40, 50]
    assert sorted(disk.durable) == [0, 1, 2, 4, 5], "each once, and nothing of the one that failed"


def test_a_full_disk_is_everybodys_error(disk: Disk) -> None:
    disk.error = OSError("full")
    assert all(isinstance(found, OSError) for found in together(disk, writes(disk, 4)))
    assert disk.durable == []


def test_who_is_interrupted_leaves_nobody_waiting_and_nothing_twice(disk: Disk) -> None:
    disk.error = KeyboardInterrupt()
    assert all(isinstance(found, KeyboardInterrupt) for found in together(disk, writes(disk, 4)))
    assert disk.durable == []


def test_alone_it_is_an_ordinary_transaction(disk: Disk) -> None:
    disk.gate.set()
    assert [GroupCommit(disk.begin).do(work) for work in writes(disk, 3)] == [0, 10, 20]
    assert disk.commits == 3
