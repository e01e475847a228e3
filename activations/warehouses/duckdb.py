"""DuckDB: one file, one writer.

While one process writes, no other process can even read, and a reader keeps every writer out. So sessions are opened
late and closed early, and a lock held by somebody else is waited for, up to a bound.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import sqlglot.expressions as exp

from activations.clock import Clock, SystemClock
from activations.errors import RelationMissing, WarehouseError, WarehouseLocked
from activations.manifest import Relation

RETRY_SECONDS = 0.25


class DuckDBWarehouse:
    """A DuckDB file. `wait_seconds` bounds the wait for another process."""

    dialect = "duckdb"

    def __init__(
        self,
        path: Path,
        *,
        wait_seconds: float = 60,
        memory_limit: str | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._path, self._wait, self._memory = path, wait_seconds, memory_limit
        self._clock = clock or SystemClock()

    @contextmanager
    def read(self) -> Iterator[DuckDBSession]:
        if not self._path.exists():
            raise RelationMissing(
                f"there is no warehouse file {self._path.name} yet. Load the raw data and run `dbt build` first"
            )
        with self._session(read_only=True) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[DuckDBSession]:
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self._session(read_only=False) as session:
            self._path.chmod(0o600)
            yield session

    def sha256(self, text: exp.Expr) -> exp.Expr:
        return exp.Anonymous(this="sha256", expressions=[text])

    def md5(self, text: exp.Expr) -> exp.Expr:
        return exp.Anonymous(this="md5", expressions=[text])

    @contextmanager
    def _session(self, *, read_only: bool) -> Iterator[DuckDBSession]:
        connection = self._connect(read_only)
        try:
            yield DuckDBSession(connection)
        except duckdb.CatalogException as error:
            raise RelationMissing(
                f"{_first_line(error)}. Run `dbt build` and `activations init` first"
            ) from None
        except (duckdb.IOException, duckdb.FatalException, duckdb.OutOfMemoryException) as error:
            raise WarehouseError(
                f"the warehouse failed ({type(error).__name__}): {_without_values(error)}"
            ) from None
        except duckdb.Error as error:  # its text may quote a value of somebody's row
            raise WarehouseError(
                f"the warehouse refused the query ({type(error).__name__}). Run `dbt build`; if it goes on, query the audience by hand"
            ) from None
        finally:
            connection.close()

    def _connect(self, read_only: bool) -> duckdb.DuckDBPyConnection:
        deadline = self._clock.monotonic() + self._wait
        while True:
            try:
                return _hardened(duckdb.connect(str(self._path), read_only=read_only, config=self._config()))
            except duckdb.ConnectionException as error:
                raise WarehouseLocked(
                    "this process already holds the warehouse in another mode. Close that connection first"
                ) from error
            except duckdb.IOException as error:
                if "Could not set lock" not in str(error):
                    raise WarehouseError(
                        f"{self._path.name} cannot be opened: {_without_values(error)}. Is it a DuckDB file?"
                    ) from None
                if self._clock.monotonic() >= deadline:
                    raise WarehouseLocked(_holder(error, self._path.name, self._wait)) from None
                self._clock.sleep(RETRY_SECONDS)
            except duckdb.Error as error:
                raise WarehouseError(
                    f"{self._path.name} cannot be opened ({type(error).__name__}). Check `warehouse:` in project.yml"
                ) from None

    def _config(self) -> dict[str, str | bool | int | float | list[str]]:
        """Users' SQL stands behind the relations we read: it must reach no file and no Python variable."""
        config: dict[str, str | bool | int | float | list[str]] = {
            "enable_external_access": "false",
        }
        return config | ({"memory_limit": self._memory} if self._memory else {})


class DuckDBSession:
    """An open connection to the file."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection

    def run(self, statement: exp.Expr | str, parameters: Sequence[Any] = ()) -> None:
        self._connection.execute(_sql(statement), list(parameters))

    def rows(self, query: exp.Expr | str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        return self._connection.execute(_sql(query), list(parameters)).fetchall()

    def stream(self, query: exp.Expr, batch_rows: int) -> pa.RecordBatchReader:
        return self._connection.sql(_sql(query)).to_arrow_reader(batch_rows)

    def load(self, name: str, table: pa.Table) -> None:
        view = f"{name}_arrow"
        self._connection.register(view, table)
        self.keep(name, exp.select("*").from_(exp.to_table(view)))
        self._connection.unregister(view)

    def keep(self, name: str, query: exp.Expr) -> None:
        table = exp.to_identifier(name, quoted=True).sql("duckdb")
        self._connection.execute(f"create or replace temp table {table} as {_sql(query)}")

    def hold(self, *relations: Relation) -> None:
        """Nothing to do: who holds the file keeps every writer out."""

    def columns(self, relation: Relation) -> Mapping[str, str]:
        query = "select column_name, data_type from information_schema.columns where table_schema = ? and table_name = ?"
        return dict(self._connection.execute(query, [relation.schema, relation.name]).fetchall())

    @contextmanager
    def transaction(self) -> Iterator[None]:
        self._connection.begin()
        try:
            yield
        except BaseException:
            self._connection.rollback()
            raise
        self._connection.commit()


def _hardened(connection: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyConnection:
    """In UTC wherever the machine stands, since a timestamp's text is part of fingerprints; and then for good."""
    connection.execute("set TimeZone = 'UTC'")
    connection.execute("set lock_configuration = true")
    return connection


def _sql(statement: exp.Expr | str) -> str:
    return statement if isinstance(statement, str) else statement.sql(dialect="duckdb")


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0].removeprefix("Catalog Error: ").rstrip(".!")


def _without_values(error: Exception) -> str:
    """DuckDB's errors may quote a value: keep what stands before the first quotation mark."""
    return re.split(r"[\"']", _first_line(error), maxsplit=1)[0].strip(" :") or type(error).__name__


def _holder(error: Exception, name: str, waited: float) -> str:
    found = re.search(r"PID (\d+)", str(error))
    who = f"process {found.group(1)}" if found else "another process"
    return (
        f"{who} holds {name} and did not let go within {waited:.0f} s. Wait for it, or stop it, and try again"
    )
