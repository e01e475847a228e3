"""The engine's ports on virtual time: clock, journal file, warehouse file, kernel lock, randomness.

The journal is real SQLite and the warehouse real DuckDB (in memory); what is added is the chance to die before or
after any commit, the chance to lose the turn, and the lock that a second process would meet.
"""

from __future__ import annotations

import random
import re
import sqlite3
import uuid
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import duckdb

import activations.delivery.deliverer
import activations.delivery.pace
import activations.delivery.rate
import activations.delivery.work
import activations.journal.commits
import activations.journal.postgres
import activations.journal.sqlite
import activations.planning.freezing
import activations.warehouses.duckdb
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


@dataclass(frozen=True, slots=True)
class CrashPoint:
    """The n-th commit from now on, in either store."""

    number: int
    side: str
    """`before` and `after` it the process dies; `full` is the disk, and the process lives."""

    def __str__(self) -> str:
        return f"{self.side} commit {self.number}"


AFTER_INTENT = CrashPoint(0, "between intent and request, after")


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
    crash_at: CrashPoint | None = None
    commits: int = 0
    on_stall: Callable[[float], None] = lambda _: None
    on_death: Callable[[Process], None] = lambda _: None
    on_takeover: Callable[[], None] = lambda: None
    after_commit: Callable[[str], None] = lambda _: None

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
        if self._draw(self.chances.stall_anywhere):
            self.seen["pause"] += 1
            self._stall(process, self.random.uniform(5, 60))
        else:
            self.scheduler.sleep(self.random.random() * 0.002)

    def _stall(self, process: Process, seconds: float) -> None:
        """One thread sleeps, or the whole process does, the heart of its lease included."""
        if self.random.random() < 0.5:
            process.frozen_until = self.scheduler.now + seconds
        self.scheduler.sleep(seconds)

    def stall_before_send(self) -> None:
        """A pause exactly between intent and send; the world uses the occasion."""
        if self.process and self.crash_at == AFTER_INTENT:
            self.die(self.process, "crash_after_journal_commit")
        if self.process is None or not self._draw(self.chances.stall_before_send):
            return
        self.seen["pause_before_send"] += 1
        seconds = self.random.uniform(1, 80)
        self.on_stall(seconds)
        self._stall(self.process, seconds)

    def die_at_commit(self, store: str, side: str) -> None:
        process = self.process
        if process is None:
            return
        self.commits += side == "before"
        weight = 4 if store == "warehouse" else 1  # one of them for ten of the journal's
        if self.crash_at == CrashPoint(self.commits, side) or self._draw(self.chances.die_at_commit * weight):
            self.die(process, f"crash_{side}_{store}_commit")

    def disk_is_full(self, chance: float) -> bool:
        is_full = self.process is not None and (
            self.crash_at == CrashPoint(self.commits, "full") or self._draw(chance)
        )
        self.seen["fault_disk_full"] += is_full
        return is_full

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

    def check_alive(self, process: Process) -> None:
        strand = self.scheduler.current
        if process.is_dead or (strand and not strand.is_alive):
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

    def sleep(self, seconds: float, unless: object = None) -> None:
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
            if ports.disk_is_full(ports.chances.disk_full):
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

    def __init__(self, db: duckdb.DuckDBPyConnection) -> None:
        self.db = db
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
        return run(self._cursor, statement, *arguments)

    def sql(self, query: str) -> _Query:
        return _Query(self._cursor, query)

    def commit(self) -> None:
        self._ports.die_at_commit("warehouse", "before")
        if self._ports.disk_is_full(0.0):
            raise duckdb.IOException("IO Error: Could not write file: No space left on device")
        self._cursor.commit()
        self._ports.seen["warehouse_commit"] += 1
        self._ports.after_commit("warehouse")
        self._ports.die_at_commit("warehouse", "after")
        self._ports.step()

    def close(self) -> None:
        self._cursor.close()
        if self in self._database.sessions:
            self._database.sessions.remove(self)


class _Query:
    """A query whose answer is read as Arrow. A relation of DuckDB's would plan it twice."""

    def __init__(self, cursor: duckdb.DuckDBPyConnection, query: str) -> None:
        self._cursor, self._query = cursor, query

    def to_arrow_reader(self, batch_rows: int) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # an extra copy, of a dozen rows
            return run(self._cursor, self._query).to_arrow_reader(batch_rows)


_statements: dict[str, list[Any]] = {}


def run(cursor: duckdb.DuckDBPyConnection, statement: str, *arguments: Any) -> duckdb.DuckDBPyConnection:
    """Parsed once in an OS process, since most statements are the same text in every run."""
    if statement not in _statements:
        _statements[statement] = cursor.extract_statements(statement)
    for parsed in _statements[statement]:
        cursor.execute(parsed, *arguments)
    return cursor


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

    def open_journal(*arguments: Any, **options: Any) -> sqlite3.Connection:
        return connect_sqlite(*arguments, factory=connection, **(options | {"timeout": 0.0}))

    def open_warehouse(path: str, read_only: bool = False, **_: Any) -> Warehouse:
        return _open_warehouse(ports, path, read_only)

    with ExitStack() as stack:
        for target, name, value in (
            (sqlite3, "connect", open_journal),
            (duckdb, "connect", open_warehouse),
            (uuid, "uuid4", lambda: uuid.UUID(int=random_ids.getrandbits(128), version=4)),
            (activations.planning.freezing.os, "fsync", lambda _: None),
            (activations.warehouses.duckdb, "_threads", lambda: 1),
            (activations.delivery.deliverer, "threading", threads),
            (activations.delivery.deliverer, "ThreadPoolExecutor", Executor(ports.scheduler)),
            (activations.delivery.work, "threading", threads),
            (activations.delivery.pace, "threading", threads),
            (activations.delivery.rate, "threading", threads),
            (activations.journal.commits, "threading", threads),
            (activations.journal.sqlite, "threading", threads),
            (activations.journal.postgres, "threading", threads),
        ):
            stack.enter_context(patch.object(target, name, value))
        yield


def create_database(ports: Ports, path: Path) -> Database:
    """The file exists, so that the engine finds it; its content is in memory."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return ports.databases.setdefault(str(path), Database(_emptied()))


@lru_cache(maxsize=1)
def _memory() -> duckdb.DuckDBPyConnection:
    """Without an optimizer, which costs more than a dozen rows can give back."""
    db = connect_duckdb(":memory:", config={"threads": 1, "enable_optimizer": "false"})
    db.execute("set TimeZone = 'UTC'")
    return db


def _emptied() -> duckdb.DuckDBPyConnection:
    """One database after the other in the same memory: opening one costs more than many a schedule's runs."""
    db = _memory().cursor()
    schemas = "select schema_name from duckdb_schemas() where database_name = 'memory' and not internal and schema_name <> 'main'"
    for (schema,) in run(db, schemas).fetchall():
        run(db, f"drop schema {schema} cascade")
    return db
