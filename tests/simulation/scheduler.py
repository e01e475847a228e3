"""Virtual time and processes that take turns.

Every strand (a process's main thread or one of its workers) is a thread, but only one of them runs at any moment, and
it hands its turn on at port calls only: sleeping, sending, committing, opening the warehouse. Which strand goes on is
drawn from the seed, so a schedule can be repeated exactly.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

NEVER = math.inf


class Killed(BaseException):
    """Like kill -9: nothing in the engine catches it."""


class Stuck(AssertionError):
    """Every strand waits for another one, for ever."""


class Strand:
    """One thread of one process, asleep until its turn."""

    def __init__(self, process: Process, body: Callable[[], None]) -> None:
        self.process, self.wake_at, self.is_done = process, process.scheduler.now, False
        self.error: BaseException | None = None
        self.life = process.life
        self._body, self._turn = body, threading.Lock()
        self._turn.acquire()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        self._turn.acquire()
        try:
            self._body()
        except BaseException as error:
            self.error = error
        self.is_done, self.wake_at = True, NEVER
        self.process.scheduler.strand_ended(self)

    @property
    def due(self) -> float:
        """When it goes on: not while its process is frozen as a whole."""
        return max(self.wake_at, self.process.frozen_until)

    @property
    def is_alive(self) -> bool:
        return not self.process.is_dead and self.life == self.process.life

    def resume(self) -> None:
        self._turn.release()

    def await_turn(self) -> None:
        self._turn.acquire()


class Process:
    """Something that can be killed as a whole. `skew` is how far its clock is off."""

    def __init__(self, scheduler: Scheduler, name: str, *, skew: float = 0.0) -> None:
        self.scheduler, self.name, self.skew = scheduler, name, skew
        self.is_dead = False
        self.life = 0
        self.frozen_until = 0.0
        self.strands: list[Strand] = []

    def start(self, body: Callable[[], None]) -> Strand:
        strand = Strand(self, body)
        self.strands.append(strand)
        self.scheduler.strands.append(strand)
        return strand

    def kill(self) -> None:
        """From now on every strand of it raises Killed at its next port call."""
        self.is_dead, self.frozen_until = True, 0.0
        for strand in self.strands:
            if not strand.is_done:
                strand.wake_at = self.scheduler.now

    def revive(self) -> None:
        """A new process under the old name, on the strand that calls this; what is left of the others ends."""
        self.is_dead, self.life = False, self.life + 1
        assert self.scheduler.current is not None
        self.scheduler.current.life = self.life


class Scheduler:
    """Virtual seconds since the start; timers run in the scheduler's own thread, between turns."""

    def __init__(self, random_source: random.Random) -> None:
        self.now, self.turns = 0.0, 0
        self.strands: list[Strand] = []
        self.current: Strand | None = None
        self._random = random_source
        self._own_turn = threading.Lock()
        self._own_turn.acquire()
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()

    # -- called between turns ----------------------------------------------------------------------------------

    def at(self, moment: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._timers, (max(moment, self.now), next(self._numbers), action))

    @property
    def has_timers(self) -> bool:
        return bool(self._timers)

    def run(self) -> None:
        """Until every strand ended. Timers that are due later wait for `advance`."""
        while any(not strand.is_done for strand in self.strands):
            strand = self._next_strand()
            if strand is not None:
                self._give_turn(strand)
        self.strands.clear()

    def advance(self, seconds: float) -> None:
        """Time passes while no process runs."""
        until = self.now + seconds
        while self._timers and self._timers[0][0] <= until:
            self._run_timer()
        self.now = until

    def _next_strand(self) -> Strand | None:
        """Somebody who may run now, or None after a timer ran."""
        soonest = min(strand.due for strand in self.strands)
        if self._timers and self._timers[0][0] <= max(soonest, self.now):
            self._run_timer()
            return None
        if soonest == NEVER:
            raise Stuck("every strand waits for another one")
        self.now = max(self.now, soonest)
        ready = [strand for strand in self.strands if strand.due <= self.now]
        return ready[0] if len(ready) == 1 else self._random.choice(ready)

    def _run_timer(self) -> None:
        moment, _, action = heapq.heappop(self._timers)
        self.now = max(self.now, moment)
        action()

    def _give_turn(self, strand: Strand) -> None:
        self.turns += 1
        self.current = strand
        strand.resume()
        self._own_turn.acquire()
        self.current = None
        self.strands = [s for s in self.strands if not s.is_done]

    def strand_ended(self, strand: Strand) -> None:
        self._own_turn.release()

    # -- called by the strand whose turn it is -----------------------------------------------------------------

    def sleep(self, seconds: float) -> None:
        """Hand the turn on for so long; 0 is a mere chance for somebody else."""
        strand = self.current
        if strand is None:  # an operator's command, between turns: it takes no time
            return
        self._sleep_until(strand, self.now + max(seconds, 0.0))

    def block(self) -> None:
        """Hand the turn on until somebody sets `wake_at`."""
        assert self.current is not None
        self._sleep_until(self.current, NEVER)

    def _sleep_until(self, strand: Strand, moment: float) -> None:
        strand.wake_at = moment
        if not self._may_go_on(strand):
            self._own_turn.release()
            strand.await_turn()
        if not strand.is_alive:
            raise Killed

    def _may_go_on(self, strand: Strand) -> bool:
        """Nobody else could run before: moving the clock on is all there is to do."""
        due = strand.due
        if due == NEVER or (self._timers and self._timers[0][0] <= due):
            return False
        if any(s is not strand and not s.is_done and s.due <= due for s in self.strands):
            return False
        self.now = max(self.now, due)
        return True


# -- what the engine's modules get instead of `threading` and ThreadPoolExecutor ----------------------------------


class Lock:
    """Reentrant where the engine wants an RLock; nobody can tell the difference otherwise."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._holder: Strand | None = None
        self._depth = 0
        self._waiting: list[Strand] = []

    def __enter__(self) -> Lock:
        me = self._scheduler.current
        while self._holder is not None and self._holder is not me:
            assert me is not None, "an operator's command met a lock that is held"
            self._waiting.append(me)
            self._scheduler.block()
        self._holder, self._depth = me, self._depth + 1
        return self

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if self._depth:
            return
        self._holder = None
        for strand in self._waiting:
            strand.wake_at = min(strand.wake_at, self._scheduler.now)
        self._waiting.clear()

    acquire = __enter__

    def release(self) -> None:
        self.__exit__()


class Condition:
    def __init__(self, scheduler: Scheduler, lock: Lock | None = None) -> None:
        self._scheduler, self._lock = scheduler, lock or Lock(scheduler)
        self._sleeping: list[Strand] = []

    def __enter__(self) -> Condition:
        self._lock.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> Any:
        assert timeout is None
        while not (found := predicate()):
            me = self._scheduler.current
            assert me is not None
            self._sleeping.append(me)
            self.__exit__()
            try:
                self._scheduler.block()
            finally:
                self.__enter__()
        return found

    def wait(self, timeout: float | None = None) -> None:
        seen = iter((False, True))
        self.wait_for(lambda: next(seen), timeout)

    def notify_all(self) -> None:
        for strand in self._sleeping:
            strand.wake_at = min(strand.wake_at, self._scheduler.now)
        self._sleeping.clear()

    def notify(self, _count: int = 1) -> None:
        self.notify_all()


class Event:
    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._is_set = False
        self._waiting: list[Strand] = []

    def is_set(self) -> bool:
        return self._is_set

    def set(self) -> None:
        self._is_set = True
        for strand in self._waiting:
            strand.wake_at = min(strand.wake_at, self._scheduler.now)
        self._waiting.clear()

    def wait(self, timeout: float = NEVER) -> bool:
        me = self._scheduler.current
        assert me is not None
        self._waiting.append(me)
        if not self._is_set:
            self._scheduler.sleep(timeout)
        return self._is_set


class Thread:
    """A strand of the process that starts it."""

    def __init__(
        self, scheduler: Scheduler, target: Callable[..., None], args: tuple[Any, ...] = (), **_: object
    ) -> None:
        self._scheduler, self._is_over = scheduler, Event(scheduler)
        self._target, self._arguments = target, args

    def start(self) -> None:
        assert self._scheduler.current is not None
        self._scheduler.current.process.start(self._run)

    def _run(self) -> None:
        try:
            self._target(*self._arguments)
        finally:
            self._is_over.set()

    def join(self) -> None:
        self._is_over.wait(NEVER)


class Threading:
    """The part of the module `threading` that the engine uses, on virtual time."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.Lock = self.RLock = lambda: Lock(scheduler)
        self.Condition = partial(Condition, scheduler)
        self.Event = lambda: Event(scheduler)
        self.Thread = partial(Thread, scheduler)


class Future:
    def __init__(self) -> None:
        self._value: Any = None
        self._error: BaseException | None = None

    def fill(self, work: Callable[[], Any]) -> None:
        try:
            self._value = work()
        except BaseException as error:
            self._error = error

    def result(self) -> Any:
        if self._error is not None:
            raise self._error
        return self._value


class Executor:
    """ThreadPoolExecutor as the deliverer uses it: as many workers as tasks, all awaited at the end of the block."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._strands: list[Strand] = []
        self._awaiting: Strand | None = None

    def __call__(self, *_: object, **__: object) -> Executor:
        return Executor(self._scheduler)

    def __enter__(self) -> Executor:
        return self

    def submit(self, work: Callable[..., Any], *arguments: Any) -> Future:
        future = Future()
        assert self._scheduler.current is not None

        def body() -> None:
            future.fill(lambda: work(*arguments))
            if self._awaiting is not None:
                self._awaiting.wake_at = min(self._awaiting.wake_at, self._scheduler.now)

        self._strands.append(self._scheduler.current.process.start(body))
        return future

    def __exit__(self, *_: object) -> None:
        me = self._scheduler.current
        self._awaiting = me
        died = False
        while any(not strand.is_done for strand in self._strands):
            try:
                self._scheduler.block()
            except Killed:
                died = True
        if died:
            raise Killed
