"""DuckDB: one file, one writer.

While one process writes, no other process can even read, and a reader keeps every writer out. So sessions are opened
late and closed early, and a lock held by somebody else is waited for, up to a bound.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import pyarrow as pa
import sqlglot.expressions as exp

from activations.clock import Clock, SystemClock
from activations.errors import RelationMissing, WarehouseError, WarehouseLocked
from activations.manifest import Relation

RETRY_SECONDS = 0.25
WRITING_THREADS = 2
READING_MEMORY, WRITING_MEMORY = 75_000_000, 32_000_000
"""Bytes that a thread has at the least, where project.yml says nothing: every thread holds groups of rows of its own. What
is written comes as a stream; more memory would keep blocks that nobody reads again."""
MOST_MEMORY = 1_000_000_000
"""Bytes of a session."""


class DuckDBWarehouse:
    """A DuckDB file. `wait_seconds` bounds the wait for another process."""

    dialect = "duckdb"
    hashing = f"duckdb {duckdb.__version__}"
    """DuckDB's `hash` is not the same in every version."""
    random_text = "using compression uncompressed"
    """Compressing keys and hashes halves them, and takes a third of the time of a large merge."""

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

    def row_hash(self, salt: str, values: Sequence[exp.Expr]) -> exp.Expr:
        return _signed(_hash(exp.Literal.string(salt), *values))

    def text_hash(self, seed: int, texts: Sequence[exp.Expr]) -> exp.Expr:
        # Twice: DuckDB folds the last value in by a mere xor, which a sum over rows does not mix.
        return _hash(_hash(exp.Literal.number(seed), *texts))

    def mark(self, value: exp.Expr) -> exp.Expr:
        return exp.cast(exp.BitwiseAnd(this=_hash(value), expression=exp.Literal.number(0xFFFF)), "int")

    def parsed(self, text: exp.Expr, data_type: str) -> exp.Expr:
        return exp.TryCast(this=text, to=exp.DataType.build(data_type, dialect="duckdb"))

    @contextmanager
    def _session(self, *, read_only: bool) -> Iterator[DuckDBSession]:
        # What is spilled holds people's data: in a folder that only its owner may enter, gone with the session.
        with TemporaryDirectory(prefix="spill-", dir=self._path.parent) as spill:
            yield from self._opened(read_only, spill)

    def _opened(self, read_only: bool, spill: str) -> Iterator[DuckDBSession]:
        connection = self._connect(read_only, spill)
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

    def _connect(self, read_only: bool, spill: str) -> duckdb.DuckDBPyConnection:
        deadline = self._clock.monotonic() + self._wait
        while True:
            try:
                return _hardened(
                    duckdb.connect(
                        str(self._path), read_only=read_only, config=self._config(spill, read_only)
                    )
                )
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

    def _config(self, spill: str, read_only: bool) -> dict[str, str | bool | int | float | list[str]]:
        """Users' SQL stands behind the relations we read: it must reach no file and no Python variable."""
        threads, memory = (_threads(), READING_MEMORY) if read_only else (WRITING_THREADS, WRITING_MEMORY)
        return {
            "enable_external_access": "false",
            "preserve_insertion_order": "false",  # takes memory, and every order that counts is asked for
            "memory_limit": self._memory or f"{self._usual_memory(threads * memory) // 1_000_000}MB",
            "threads": threads,
            "temp_directory": spill,
        }

    def _usual_memory(self, least: int) -> int:
        """As much as the file is large, within bounds: what does not fit is spilled, and more makes nothing faster."""
        size = self._path.stat().st_size if self._path.exists() else 0
        return min(max(size, least), MOST_MEMORY)


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
        self._connection.register(name, table)

    @contextmanager
    def offer(self, name: str, read: Callable[[], pa.RecordBatchReader]) -> Iterator[None]:
        self._connection.register(name, _Offer(read))
        try:
            yield
        except BaseException:
            with suppress(
                duckdb.Error
            ):  # while what failed is not cleaned up it says so, over the true reason
                self._connection.unregister(name)
            raise
        self._connection.unregister(name)

    def keep(self, name: str, query: exp.Expr) -> None:
        self._connection.execute(f'create or replace temp table "{name}" as {_sql(query)}')

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


class _Offer:
    """Arrow data that is read anew by every statement."""

    def __init__(self, read: Callable[[], pa.RecordBatchReader]) -> None:
        self._read = read

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self._read().__arrow_c_stream__(requested_schema)


@cache
def _threads() -> int:
    """As many as DuckDB takes by itself: it knows what a container may use."""
    with duckdb.connect() as connection:
        [(threads,)] = connection.execute("select current_setting('threads')").fetchall()
    return int(threads)


def _hardened(connection: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyConnection:
    """In UTC wherever the machine stands, since a timestamp's text is part of fingerprints; and then for good."""
    connection.execute("set TimeZone = 'UTC'")
    connection.execute("set lock_configuration = true")
    return connection


def _hash(*values: exp.Expr) -> exp.Expr:
    return exp.Anonymous(this="hash", expressions=list(values))


def _signed(hashed: exp.Expr) -> exp.Expr:
    """Without its lowest bit, so that it fits into a type that every warehouse and Parquet have."""
    return exp.cast(exp.BitwiseRightShift(this=hashed, expression=exp.Literal.number(1)), "bigint")


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
