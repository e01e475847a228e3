"""What every simulated run needs: a world, its warehouse, the other side, the referee, and engines that share them."""

from __future__ import annotations

import logging
import os
import random
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from unittest.mock import patch

from activations.config import Guard
from activations.errors import ActivationsError
from activations.journal import opening
from activations.model import SyncRun
from activations.planning import sieve
from activations.runner import Engine
from tests.simulation import shortcuts
from tests.simulation.hosts import leased_store
from tests.simulation.judge import Referee
from tests.simulation.ports import Chances, Ports, SimulatedClock, create_database, installed, run
from tests.simulation.provider import Provider
from tests.simulation.scheduler import Process, Scheduler
from tests.simulation.world import Shape, World, create_tables, is_bad, project

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
class Stage:
    """`name` tells the state folders of one OS process apart; everything random comes from `draw`."""

    name: str
    draw: random.Random
    shape: Shape
    chances: Chances
    people: int
    scheduler: Scheduler = field(init=False)
    ports: Ports = field(init=False)
    world: World = field(init=False)
    provider: Provider = field(init=False)
    referee: Referee = field(init=False)

    def __post_init__(self) -> None:
        draw = self.draw
        self.scheduler = Scheduler(random.Random(draw.random()))
        self.ports = Ports(self.scheduler, random.Random(draw.random()), self.chances)
        self.world = World(random.Random(draw.random()), self.people)
        place = project(self.shape, f"{os.getpid()}-{self.name}")
        database = create_database(self.ports, place.warehouse_path)
        create_tables(database.db)
        self.referee = Referee(
            self.ports, self.world, place, database, self.shape.guard, self.shape.several_hosts
        )
        self.provider = Provider(
            ports=self.ports,
            random=random.Random(draw.random()),
            settle_seconds=self.shape.settle_seconds,
            names_bad_rows=self.shape.names_bad_rows,
            is_bad=is_bad,
            judge=self.referee,
        )
        self.referee.provider = self.provider
        self.ports.on_death = self.referee.on_death
        self.ports.on_takeover = self.referee.on_takeover
        self.ports.after_commit = self.referee.after_commit

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Within this block there are a journal, a ledger and a first build; after it nothing is left."""
        try:
            with (
                installed(self.ports),
                self._journal_store(),
                shortcuts.taken(),
                patch.object(sieve, "FEW", -1 if self.shape.is_large else sieve.FEW),
                patch.dict(os.environ),
                self._overheard(),
            ):
                for name in ("ACTIVATIONS_VAR", "DBT_TARGET_PATH", "ACTIVATIONS_SANDBOX_URL"):
                    os.environ.pop(name, None)
                run(self.referee.database.db, shortcuts.ledger_tables())
                self.engine(None).status()  # the journal is there before anybody reads it
                self.build()
                yield
        finally:
            self.referee.close()
            self.referee.database.db.close()
            shutil.rmtree(self.referee.project.var, ignore_errors=True)

    def _journal_store(self) -> AbstractContextManager[object]:
        if not self.shape.several_hosts:
            return nullcontext()
        return patch.object(opening, "SQLiteStore", leased_store(self.ports))

    @contextmanager
    def _overheard(self) -> Iterator[None]:
        """Whatever is logged, the referee reads."""
        handler = logging.Handler()
        handler.emit = lambda record: self.referee.said.append(record.getMessage())  # type: ignore[method-assign]
        logging.getLogger().addHandler(handler)
        try:
            yield
        finally:
            logging.getLogger().removeHandler(handler)

    def result(self, seed: int) -> Result:
        counts = Counter(self.ports.seen)
        counts["requests"] = self.provider.requests
        counts["virtual_seconds"] = int(self.scheduler.now)
        return Result(seed, counts, tuple(str(v) for v in self.referee.violations))

    # -- engines -----------------------------------------------------------------------------------------------

    def engine(self, process: Process | None) -> Engine:
        clock = SimulatedClock(self.ports, process)
        return Engine(self.referee.project, clock=clock, transport=lambda _: self.provider)

    def run(self, process: Process, name: str) -> SyncRun | Exception:
        """One run, or why it could not be made."""
        self.ports.seen["runs"] += 1
        self.referee.on_run(process)
        try:
            run = self.engine(process).sync(name)
        except Exception as error:
            self._failed(process, name, error)
            return error
        self.ports.seen["run_" + run.run_status.value] += 1
        self.referee.on_returned(process, run)
        return run

    def _failed(self, process: Process, name: str, error: Exception) -> None:
        """An error that the engine names is an outcome; any other is a defect."""
        self.ports.seen[f"error_{type(error).__name__}"] += 1
        self.referee.said.append(str(error))
        if not isinstance(error, ActivationsError):
            self.referee.blame("crash", f"{name}: {type(error).__name__}: {error}")
        self.referee.on_death(process)

    def run_alone(self, name: str) -> SyncRun | Exception | None:
        """A run of a process of its own, while nobody else does anything; None when it died. A held plan is let pass."""
        found: list[SyncRun | Exception] = []
        process = Process(self.scheduler, "last engine")
        process.start(lambda: found.append(self.run(process, name)))
        self.scheduler.run()
        run = found[0] if found else None
        if isinstance(run, SyncRun) and run.held_reason:
            self.release(name)
        return run

    def release(self, name: str) -> None:
        self.referee.before_release(name)
        with suppress(ActivationsError):
            self.referee.on_release(self.engine(None).release(name, by="somebody", note=""))
            self.ports.seen["released"] += 1

    # -- the world ---------------------------------------------------------------------------------------------

    def build(self) -> None:
        """What dbt would do; it waits for the warehouse like everybody else."""
        database = self.referee.database
        if database.is_taken(None, read_only=False):
            self.scheduler.at(self.scheduler.now + 0.5, self.build)
            return
        self.world.build(database.db)
        self.ports.seen["builds"] += 1
        for person in self.world.built.values():
            if person.blocker is None:
                self.referee.blocked_since.pop(person.name, None)
            else:
                self.referee.blocked_since.setdefault(person.name, self.scheduler.now)
        self.referee.note_refusals()
