"""The engine's ports on virtual time: clock, journal file, warehouse file, kernel lock, randomness.

The journal is real SQLite and the warehouse real DuckDB (in memory); what is added is the chance to die before or
after any commit, the chance to lose the turn, and the lock that a second process would meet.
"""

from __future__ import annotations

import random
import re
import sqlite3
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import duckdb

import activations.delivery.deliverer
import activations.delivery.rate
import activations.delivery.work
import activations.journal.sqlite
import activations.planning.freezing
from tests.simulation.scheduler import Executor, Killed, Process, Scheduler, Threading

EPOCH = datetime(2026, 1, 5, 12, 0)
TICK = 1e-4
"""Seconds between two looks at the clock, so that no two events carry the same time."""

connect_sqlite = sqlite3.connect
connect_duckdb = duckdb.connect


def moment(seconds: float) -> datetime:
    return EPOCH + timedelta(seconds=seconds)


@dataclass(slots=True, kw_only=True)
class Chances:
    """How likely a process dies or stalls at a port call. All zero once the faults have stopped."""

    die_at_commit: float = 0.0
    die_anywhere: float = 0.0
    stall_before_send: float = 0.0
    stall_anywhere: float = 0.0
    disk_full: float = 0.0


@dataclass(slots=True)
class Ports:
    """Everything a schedule's processes share below the engine."""

    scheduler: Scheduler
    random: random.Random
    chances: Chances
    seen: Counter[str] = field(default_factory=Counter)
    databases: dict[str, Database] = field(default_factory=dict)
    connections: list[Any] = field(default_factory=list)
    """Every connection to the journal that a process has open."""
    on_stall: Callable[[float], None] = lambda _: None
    on_death: Callable[[Process], None] = lambda _: None
    after_commit: Callable[[str], None] = lambda _: None
    locks_exclude: bool = True
    """False: two hosts, whose kernel locks know nothing of each other. Only the epoch fences."""

    @property
    def process(self) -> Process | None:
        strand = self.scheduler.current
        return strand.process if strand else None

    def step(self) -> None:
        """A place where a process may die, stall, or lose its turn."""
        process = self.process
        if process is None:
            return
        self.check_alive(process)
        if self._draw(self.chances.die_anywhere):
            self.die(process, "kill")
        stall = 0.0
        if self._draw(self.chances.stall_anywhere):
            self.seen["pause"] += 1
            stall = self.random.uniform(5, 60)
        self.scheduler.sleep(stall or self.random.random() * 0.002)

    def stall_before_send(self) -> None:
        """A pause exactly between intent and send; the world uses the occasion."""
        if self.process is None or not self._draw(self.chances.stall_before_send):
            return
        self.seen["pause_before_send"] += 1
        seconds = self.random.uniform(1, 80)
        self.on_stall(seconds)
        self.scheduler.sleep(seconds)

    def die_at_commit(self, store: str, side: str) -> None:
        process = self.process
        weight = 4 if store == "warehouse" else 1  # one of them for ten of the journal's
        if process is not None and self._draw(self.chances.die_at_commit * weight):
            self.die(process, f"crash_{side}_{store}_commit")

    def disk_is_full(self) -> bool:
        return self.process is not None and self._draw(self.chances.disk_full)

    def die(self, process: Process, how: str) -> None:
        self.seen[how] += 1
        process.kill()
        self.close_handles(process)
        self.on_death(process)
        raise Killed

    def close_handles(self, process: Process) -> None:
        """A dead process holds no lock and no transaction."""
        for connection in [c for c in self.connections if c.owner is process]:
            connection.close()
        for database in self.databases.values():
            for session in [s for s in database.sessions if s.process is process]:
                session.close()

    @staticmethod
    def check_alive(process: Process) -> None:
        if process.is_dead:
            raise Killed

    def _draw(self, chance: float) -> bool:
        return chance > 0 and self.random.random() < chance


class SimulatedClock:
    """One process's clock."""

    def __init__(self, ports: Ports, process: Process | None) -> None:
        self._ports, self._process = ports, process

    def now(self) -> datetime:
        self._ports.scheduler.now += TICK
        return moment(self._ports.scheduler.now + (self._process.skew if self._process else 0.0))

    def monotonic(self) -> float:
        return self._ports.scheduler.now

    def sleep(self, seconds: float) -> None:
        self._ports.step()
        self._ports.scheduler.sleep(seconds)


# -- journal -------------------------------------------------------------------------------------------------------

_INTENT = re.compile(r"\binsert into batch\b")


def connection_class(ports: Ports) -> type[sqlite3.Connection]:
    """A connection of the process that opens it. Turns change only while no transaction is open."""

    class SimulatedConnection(sqlite3.Connection):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            self.owner = ports.process
            self.is_intent = False
            if self.owner is not None:
                ports.connections.append(self)

        def close(self) -> None:
            if self in ports.connections:
                ports.connections.remove(self)
            super().close()

        def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
            if self.owner is None or ports.process is None:
                return super().execute(sql, *arguments)
            ports.check_alive(self.owner)
            if sql == "commit":
                return self._commit()
            if sql.startswith("begin"):
                ports.step()
                self.is_intent = False
            elif sql.startswith("pragma synchronous"):  # durability is what the crash points simulate
                sql = "pragma synchronous = off"
            self.is_intent = self.is_intent or bool(_INTENT.search(sql))
            return super().execute(sql, *arguments)

        def _commit(self) -> sqlite3.Cursor:
            ports.die_at_commit("journal", "before")
            if ports.disk_is_full():
                ports.seen["fault_disk_full"] += 1
                raise sqlite3.OperationalError("database or disk is full")
            done = super().execute("commit")
            ports.seen["journal_commit"] += 1
            ports.after_commit("journal")
            ports.die_at_commit("journal", "after")
            ports.step()
            if self.is_intent:
                ports.stall_before_send()
            return done

    return SimulatedConnection


# -- warehouse -----------------------------------------------------------------------------------------------------


class Database:
    """One DuckDB in memory with the lock of a file: many readers or one writer, by process."""

    def __init__(self) -> None:
        self.db = connect_duckdb(":memory:", config={"threads": 1})
        self.db.execute("set TimeZone = 'UTC'")
        self.sessions: list[Warehouse] = []

    def is_taken(self, process: Process | None, *, read_only: bool) -> bool:
        others = [s for s in self.sessions if s.process is not process]
        return any(not (read_only and s.read_only) for s in others)


class Warehouse:
    """A connection as `duckdb.connect` returns it."""

    def __init__(self, ports: Ports, database: Database, *, read_only: bool) -> None:
        self._ports, self._database, self._cursor = ports, database, database.db.cursor()
        self.process, self.read_only = ports.process, read_only
        database.sessions.append(self)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursor, name)

    def execute(self, statement: str, *arguments: Any) -> Any:
        if statement.startswith("set "):  # settings of a file that is opened anew; this one lives on
            return None
        return self._cursor.execute(statement, *arguments)

    def commit(self) -> None:
        self._ports.die_at_commit("warehouse", "before")
        self._cursor.commit()
        self._ports.seen["warehouse_commit"] += 1
        self._ports.after_commit("warehouse")
        self._ports.die_at_commit("warehouse", "after")
        self._ports.step()

    def close(self) -> None:
        self._cursor.close()
        if self in self._database.sessions:
            self._database.sessions.remove(self)


def _open_warehouse(ports: Ports, path: str, read_only: bool) -> Warehouse:
    ports.step()
    database = ports.databases[path]
    if database.is_taken(ports.process, read_only=read_only):
        ports.seen["warehouse_locked"] += 1
        raise duckdb.IOException("IO Error: Could not set lock on file: Conflicting lock is held (PID 0)")
    return Warehouse(ports, database, read_only=read_only)


# -- all of them ---------------------------------------------------------------------------------------------------


@contextmanager
def installed(ports: Ports) -> Iterator[None]:
    """Within this block the engine's modules meet the simulated ports."""
    random_ids = random.Random(ports.random.random())
    connection = connection_class(ports)
    threads = Threading(ports.scheduler)
    real_lock = activations.journal.sqlite.fcntl.flock

    def open_journal(*arguments: Any, **options: Any) -> sqlite3.Connection:
        return connect_sqlite(*arguments, factory=connection, **(options | {"timeout": 0.0}))

    def open_warehouse(path: str, read_only: bool = False, **_: Any) -> Warehouse:
        return _open_warehouse(ports, path, read_only)

    def lock(handle: Any, flags: int) -> None:
        if ports.locks_exclude:
            real_lock(handle, flags)

    with ExitStack() as stack:
        for target, name, value in (
            (sqlite3, "connect", open_journal),
            (duckdb, "connect", open_warehouse),
            (uuid, "uuid4", lambda: uuid.UUID(int=random_ids.getrandbits(128), version=4)),
            (activations.journal.sqlite.fcntl, "flock", lock),
            (activations.planning.freezing.os, "fsync", lambda _: None),
            (activations.delivery.deliverer, "threading", threads),
            (activations.delivery.deliverer, "ThreadPoolExecutor", Executor(ports.scheduler)),
            (activations.delivery.work, "threading", threads),
            (activations.delivery.rate, "threading", threads),
            (activations.journal.sqlite, "threading", threads),
        ):
            stack.enter_context(patch.object(target, name, value))
        yield


def create_database(ports: Ports, path: Path) -> Database:
    """The file exists, so that the engine finds it; its content is in memory."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return ports.databases.setdefault(str(path), Database())
