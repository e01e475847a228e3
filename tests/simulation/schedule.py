"""One seed, one schedule: processes run syncs under faults, then the faults stop and the world has to converge."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from unittest.mock import patch

from activations.config import Guard
from activations.errors import ActivationsError, SyncBusy
from activations.model import SyncRun
from activations.runner import Engine
from tests.simulation import shortcuts
from tests.simulation.judge import Referee
from tests.simulation.ports import Chances, Ports, SimulatedClock, create_database, installed
from tests.simulation.provider import APPLIED_LATE, FAULTS, MESSAGES, PEOPLE, THROTTLED, Provider
from tests.simulation.scheduler import Killed, Process, Scheduler
from tests.simulation.world import Shape, World, create_tables, is_bad, project

ROUNDS_TO_CONVERGE = 9
"""In doubt, settled, successor of a shared address, released: a handful of rounds in the worst case."""
CALM = Chances()
OPEN_GUARD = Guard(min_audience_rows=0, floor_rows=1_000_000)
TIGHT_GUARD = Guard(min_audience_rows=0, max_removed_share=0.3, max_added_share=1000, max_changed_share=1, floor_rows=2)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Result:
    """What one schedule contained and what it broke."""

    seed: int
    counts: Counter[str]
    violations: tuple[str, ...]

    @property
    def invariants(self) -> frozenset[str]:
        return frozenset(text.partition(":")[0] for text in self.violations)


@dataclass(slots=True)
class Schedule:
    """Everything that is drawn from the seed."""

    seed: int
    random: random.Random = field(init=False)
    scheduler: Scheduler = field(init=False)
    ports: Ports = field(init=False)
    world: World = field(init=False)
    provider: Provider = field(init=False)
    referee: Referee = field(init=False)
    shape: Shape = field(init=False)
    runs_left: int = 0
    last_error: str = ""

    def __post_init__(self) -> None:
        self.random = draw = random.Random(self.seed)
        self.scheduler = Scheduler(random.Random(draw.random()))
        self.shape = Shape(
            batch_rows=draw.choice((1, 2, 3, 5, 50)),
            concurrency=draw.choice((1, 1, 2, 3)),
            settle_seconds=draw.choice((30, 120, 900)),
            guard=draw.choice((OPEN_GUARD, OPEN_GUARD, TIGHT_GUARD)),
        )
        chances = Chances(
            die_at_commit=draw.choice((0, 0.02, 0.08)),
            die_anywhere=draw.choice((0, 0, 0.005, 0.02)),
            stall_before_send=draw.choice((0, 0.05, 0.3, 0.5)),
            stall_anywhere=draw.choice((0, 0.005, 0.02)),
            disk_full=draw.choice((0, 0, 0.01)),
        )
        self.ports = Ports(self.scheduler, random.Random(draw.random()), chances)
        self.world = World(random.Random(draw.random()), draw.randint(3, 14))
        self._connect(draw)

    def _connect(self, draw: random.Random) -> None:
        place = project(self.shape, f"{os.getpid()}-{self.seed}")
        database = create_database(self.ports, place.warehouse_path)
        create_tables(database.db)
        self.referee = Referee(self.ports, self.world, place, database, self.shape.guard)
        self.provider = Provider(
            ports=self.ports,
            random=random.Random(draw.random()),
            settle_seconds=self.shape.settle_seconds,
            names_bad_rows=draw.random() < 0.5,
            is_bad=is_bad,
            judge=self.referee,
            fault_rate=draw.choice((0.1, 0.35, 0.35, 0.6)),
            favourite_fault=draw.choice((None, draw.randrange(len(FAULTS)), APPLIED_LATE, THROTTLED)),
        )
        self.referee.provider = self.provider
        self.ports.on_death = self.referee.on_death
        self.ports.after_commit = self.referee.after_commit
        self.ports.on_stall = self._during_a_stall

    # -- the whole of it ---------------------------------------------------------------------------------------

    def play(self) -> Result:
        try:
            with installed(self.ports), shortcuts.taken(), patch.dict(os.environ):
                for name in ("ACTIVATIONS_VAR", "DBT_TARGET_PATH", "ACTIVATIONS_SANDBOX_URL"):
                    os.environ.pop(name, None)
                self.referee.database.db.execute(shortcuts.ledger_tables())
                self.engine(None).status()  # the journal is there before anybody reads it
                self.build()
                self._storm()
                self._calm()
        finally:
            self.referee.close()
            self.referee.database.db.close()
            shutil.rmtree(self.referee.project.var, ignore_errors=True)
        return Result(self.seed, self._counts(), tuple(str(v) for v in self.referee.violations))

    def _storm(self) -> None:
        """Processes, people and faults at the same time."""
        draw = self.random
        self.runs_left = draw.randint(4, 9)
        self._plan_changes(draw)
        for number in range(draw.choice((1, 2, 2, 3))):
            process = Process(self.scheduler, f"engine {number}")
            favourite = draw.choice((PEOPLE, PEOPLE, MESSAGES, None))
            process.start(lambda process=process, favourite=favourite: self._life(process, favourite))
        self.scheduler.run()

    def _calm(self) -> None:
        """No faults any more. Whatever is under way arrives; then so many rounds have to be enough."""
        self.ports.chances, self.provider.fault_rate = CALM, 0.0
        self.provider.renew_token()
        self.build()
        for round_number in range(ROUNDS_TO_CONVERGE):
            if any(v.invariant == "crash" for v in self.referee.violations):
                return
            if round_number or self.random.random() < 0.5:
                self.scheduler.advance(self.shape.settle_seconds + 100)
            if round_number == 1 and self.random.random() < 0.5:
                self.world.refused_leave()
                self.build()
            before = self.provider.requests
            runs = [run for name in (PEOPLE, MESSAGES) if (run := self._calm_run(name))]
            self.build()
            quiet = self.provider.requests == before and not any(run.counts.planned for run in runs)
            if round_number and len(runs) == 2 and quiet and not self.scheduler.has_timers:
                self.ports.seen["rounds"] += round_number
                break
        else:
            found = "; ".join(f"{run.sync} {run.run_status}, {run.counts.planned} planned" for run in runs)
            self.referee.blame(
                "L1", f"not converged after {ROUNDS_TO_CONVERGE} rounds: {found or self.last_error}"
            )
            return
        self.referee.final()

    def _calm_run(self, name: str) -> SyncRun | None:
        found: list[SyncRun] = []
        process = Process(self.scheduler, "last engine")
        process.start(lambda: found.extend(self._run(process, name)))
        self.scheduler.run()
        if found and found[0].held_reason:
            self._release(name)
        return found[0] if found else None

    # -- processes ---------------------------------------------------------------------------------------------

    def _life(self, process: Process, favourite: str | None) -> None:
        """Run after run, until the storm is over; a process that died is started anew."""
        while self.runs_left > 0:
            self.runs_left -= 1
            try:
                name = favourite or self.ports.random.choice((PEOPLE, MESSAGES))
                for run in self._run(process, name):
                    if run.held_reason and self.ports.random.random() < 0.3:
                        self._release(name)
                self.scheduler.sleep(self.ports.random.uniform(0.5, 40))
            except Killed:
                process.revive()
                with suppress(Killed):
                    self.scheduler.sleep(self.ports.random.uniform(0.1, 10))

    def _run(self, process: Process, name: str) -> list[SyncRun]:
        """One run; empty when it could not be made."""
        self.ports.seen["runs"] += 1
        self.referee.on_run(process)
        try:
            run = self.engine(process).sync(name)
        except ActivationsError as error:
            self.ports.seen[f"error_{type(error).__name__}"] += 1
            self.runs_left += isinstance(error, SyncBusy)
            self.last_error = str(error)
            self.referee.on_death(process)
            return []
        except sqlite3.OperationalError:
            self.referee.on_death(process)
            return []
        except Exception as error:
            self.referee.blame("crash", f"{name}: {type(error).__name__}: {error}")
            self.referee.on_death(process)
            return []
        self.ports.seen["run_" + run.run_status.value] += 1
        self.referee.on_returned(process, run)
        return [run]

    def engine(self, process: Process | None) -> Engine:
        clock = SimulatedClock(self.ports, process)
        return Engine(self.referee.project, clock=clock, transport=lambda _: self.provider)

    # -- the world ---------------------------------------------------------------------------------------------

    def _plan_changes(self, draw: random.Random) -> None:
        length = draw.choice((30, 120, 300))
        for _ in range(draw.randint(3, 14)):
            self._later(draw.uniform(0, length), self._change)
        for _ in range(draw.randint(0, 2)):
            self._later(draw.uniform(0, length), self._suppress_somebody)
        if self.shape.guard is TIGHT_GUARD and draw.random() < 0.7:
            self._later(draw.uniform(length / 3, length), self._break_the_model)

    def _later(self, seconds: float, action: Callable[[], None]) -> None:
        self.scheduler.at(self.scheduler.now + seconds, action)

    def _change(self) -> None:
        for _ in range(self.ports.random.randint(1, 3)):
            self.ports.seen["change_" + self.world.happen()] += 1
        self.build()

    def _break_the_model(self) -> None:
        self.ports.seen["change_half_leaves"] += 1
        self.world.half_leaves()
        self.build()

    def _during_a_stall(self, seconds: float) -> None:
        """A process is asleep between intent and send: a good moment to say no."""
        if self.ports.random.random() < 0.5:
            self._later(self.ports.random.uniform(0, seconds / 4), self._suppress_somebody)

    def _suppress_somebody(self) -> None:
        person = self.ports.random.choice(list(self.world.people.values()))
        value = self.ports.random.choice((person.name, person.email))
        self.engine(None).suppress([value.upper()], channel="email", reason="objection", source="simulation")
        self.ports.seen["suppressed"] += 1
        self.referee.suppressed.setdefault(value, self.scheduler.now)

    def _release(self, name: str) -> None:
        with suppress(ActivationsError):
            self.referee.on_release(self.engine(None).release(name, by="somebody", note=""))
            self.ports.seen["released"] += 1

    def build(self) -> None:
        """What dbt would do; it waits for the warehouse like everybody else."""
        database = self.referee.database
        if database.is_taken(None, read_only=False):
            self._later(0.5, self.build)
            return
        with database.db.cursor() as cursor:
            self.world.build(cursor, self.scheduler.now)
        self.ports.seen["builds"] += 1
        for person in self.world.built.values():
            if person.blocker is None:
                self.referee.blocked_since.pop(person.name, None)
            else:
                self.referee.blocked_since.setdefault(person.name, self.scheduler.now)
                self.referee.ever_blocked.add(person.name)

    def _counts(self) -> Counter[str]:
        counts = Counter(self.ports.seen)
        counts["requests"] = self.provider.requests
        counts["turns"] = self.scheduler.turns
        counts["virtual_seconds"] = int(self.scheduler.now)
        return counts


def play(seed: int) -> Result:
    return Schedule(seed).play()
