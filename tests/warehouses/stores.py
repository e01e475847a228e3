"""Where a test's warehouse lies: what a project has to say about it, and a way in beside the engine."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import duckdb
import psycopg

from tests.warehouses.server import Server


@dataclass(frozen=True, slots=True)
class Table:
    schema: str
    name: str
    columns: Mapping[str, str]
    """Name → type."""
    rows: Sequence[Sequence[Any]]

    @property
    def statements(self) -> list[str]:
        types = ", ".join(f"{column} {kind}" for column, kind in self.columns.items())
        return [
            f"create schema if not exists {self.schema}",
            f"drop table if exists {self.schema}.{self.name}",
            f"create table {self.schema}.{self.name} ({types})",
        ]

    def insert(self, mark: str) -> str:
        return f"insert into {self.schema}.{self.name} values ({', '.join(mark for _ in self.columns)})"


class Store(Protocol):
    @property
    def settings(self) -> Mapping[str, Any]:
        """`warehouse:` of project.yml."""

    @property
    def journal(self) -> Mapping[str, Any]:
        """`journal:` of project.yml: beside a warehouse on Postgres it is there too, so that every test sees both."""

    def execute(self, *statements: str) -> None: ...

    def execute_in_journal(self, statement: str) -> None: ...

    def replace(self, *tables: Table) -> None: ...

    def query(self, sql: str) -> list[tuple[Any, ...]]: ...


NewStore = Callable[[Path], Store]
"""A store for the project whose state lies in that folder; it goes with the test."""


@contextmanager
def locked(folder: Path) -> Iterator[int]:
    """The DuckDB file of that folder is open in another process, whose number is given, as while dbt builds."""
    code = "import duckdb, sys; db = duckdb.connect(sys.argv[1]); print('open', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code, str(folder / "warehouse.duckdb")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline()
        yield holder.pid
        holder.communicate()


@dataclass(frozen=True)
class DuckDBStore:
    path: Path

    @property
    def settings(self) -> Mapping[str, Any]:
        return {"type": "duckdb", "wait_seconds": 1}

    @property
    def journal(self) -> Mapping[str, Any]:
        return {"type": "sqlite"}

    def execute(self, *statements: str) -> None:
        with self._open() as db:
            for statement in statements:
                db.execute(statement)

    def execute_in_journal(self, statement: str) -> None:
        with closing(sqlite3.connect(self.path.parent / "journal.sqlite3")) as db, db:
            db.execute(statement)

    def replace(self, *tables: Table) -> None:
        with self._open() as db:
            for table in tables:
                db.execute(";".join(table.statements))
                if table.rows:
                    db.executemany(table.insert("?"), table.rows)

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        with duckdb.connect(str(self.path), read_only=True) as db:
            return db.execute(sql).fetchall()

    def _open(self) -> duckdb.DuckDBPyConnection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return duckdb.connect(str(self.path))


@dataclass(frozen=True)
class PostgresStore:
    """The connection string stands in a file of the state folder, as a project would refer to it."""

    dsn: str
    file: Path

    @property
    def settings(self) -> Mapping[str, Any]:
        return {"type": "postgres", "dsn": f"file:{self.file}", "wait_seconds": 1}

    @property
    def journal(self) -> Mapping[str, Any]:
        return {"type": "postgres", "dsn": f"file:{self.file}"}

    def execute(self, *statements: str) -> None:
        with self._open() as db:
            for statement in statements:
                db.execute(statement.encode())

    def execute_in_journal(self, statement: str) -> None:
        self.execute("set search_path to activations_journal", statement)

    def replace(self, *tables: Table) -> None:
        with self._open() as db, db.cursor() as cursor:
            for table in tables:
                cursor.execute(";".join(table.statements).encode())
                cursor.executemany(table.insert("%s").encode(), table.rows)

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        with self._open() as db:
            return db.execute(sql.encode()).fetchall()

    def _open(self) -> psycopg.Connection[tuple[Any, ...]]:
        return psycopg.connect(self.dsn)


def duckdb_store(var: Path) -> DuckDBStore:
    return DuckDBStore(var / "warehouse.duckdb")


@contextmanager
def postgres_stores(server: Server) -> Iterator[NewStore]:
    """Every store has a database of its own."""
    with ExitStack() as stack:

        def new(var: Path) -> PostgresStore:
            dsn = server.dsn(stack.enter_context(server.database()))
            var.mkdir(parents=True, exist_ok=True)
            (var / "dsn").write_text(dsn)
            return PostgresStore(dsn, var / "dsn")

        yield new
