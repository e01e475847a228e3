"""The journal's store on Postgres: a schema of its own that several hosts share.

What a file's kernel lock does on one host, a lease on the server's clock does for several. A host that is gone cannot
say so: its sync is free once its lease and twice the largest difference of clocks have passed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any

import psycopg
from psycopg import errors

from activations.dsn import DSN_FIX, check_dsn
from activations.errors import ActivationsError, SyncBusy
from activations.journal.store import VERSION, statements

_WORDS = {
    "number": "bigint generated always as identity primary key",
    "reference": "bigint",
    "bytes": "bytea",
    "moment": "timestamptz",
    "strict": "",
    "keyed": "",
}

_SETTINGS = {
    "TimeZone": "UTC",
    "synchronous_commit": "on",
    "lock_timeout": "30s",
    # A host that stalls inside a transaction must not stop the others, who wait for its locks.
    "idle_in_transaction_session_timeout": "10s",
}

_AFTER = "clock_timestamp() + make_interval(secs => ?)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Seconds. A request leaves at most 8 s after its intent, which renewed the lease: before anybody can take it."""

    lease: float = 20.0
    renew: float = 5.0
    skew: float = 1.0
    """The largest difference between the clocks of two hosts, or of a host and the server."""


def _utc_now() -> datetime:
    return datetime.now(UTC)


class PostgresStore:
    """Postgres runs transactions side by side: what has to be in turn is behind the lock of one row. Each takes the
    row of its sync before a counter, and counters in one order, so that nobody waits in a circle."""

    shared = " for share"

    def __init__(
        self, dsn: str, *, schema: str, timing: Timing = Timing(), host_now: Callable[[], datetime] = _utc_now
    ) -> None:
        self._timing = timing
        self._mutex = threading.RLock()
        self._db = _connect(dsn)
        try:
            with _own_errors():
                for name, value in (_SETTINGS | {"search_path": schema}).items():
                    self.rows("select set_config(?, ?, false)", name, value)
                self._check_clock(host_now)
                self._lay_out(schema)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._db.close()

    def run(self, statement: str, *parameters: Any) -> int:
        with self._mutex, _own_errors():
            return self._db.execute(_sql(statement), parameters).rowcount

    def rows(self, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
        with self._mutex, _own_errors():
            return self._db.execute(_sql(query), parameters).fetchall()

    def many(self, statement: str, parameters: Iterable[Sequence[Any]]) -> None:
        with self._mutex, _own_errors(), self._db.cursor() as cursor:
            cursor.executemany(_sql(statement), parameters)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        with self._mutex, _own_errors(), self._db.transaction():
            yield

    # -- lease -------------------------------------------------------------------------------------------------

    @contextmanager
    def held(self, sync: str, owner: str) -> Iterator[int]:
        epoch = self._take(sync, owner)
        over = threading.Event()
        heart = threading.Thread(
            target=self._beat, args=(sync, epoch, over), name=f"lease of {sync}", daemon=True
        )
        heart.start()
        try:
            yield epoch
        finally:
            over.set()
            heart.join()
            with suppress(ActivationsError):  # a server that cannot be reached: the lease runs out by itself
                self.run("update lease set until = null where sync = ? and epoch = ?", sync, epoch)

    def _take(self, sync: str, owner: str) -> int:
        with self.transaction():
            self.run(
                "insert into lease (sync, epoch, owner) values (?, 0, ?) on conflict do nothing", sync, owner
            )
            [(holder, until, is_over)] = self.rows(
                "select owner, until, until + make_interval(secs => ?) < clock_timestamp() from lease where sync = ? for update",
                *(2 * self._timing.skew, sync),
            )
            if until is not None and not is_over:
                raise SyncBusy(
                    f"another process is running the sync `{sync}` ({holder}; should it have died, the sync is free soon after {until:%H:%M:%S} UTC). Wait for it to finish, or stop it"
                )
            [(epoch,)] = self.rows(
                f"update lease set epoch = epoch + 1, owner = ?, until = {_AFTER} where sync = ? returning epoch",
                *(owner, self._timing.lease, sync),
            )
        return int(epoch)

    def renew(self, sync: str, epoch: int) -> bool:
        return (
            self.run(
                f"update lease set until = {_AFTER} where sync = ? and epoch = ?",
                *(self._timing.lease, sync, epoch),
            )
            == 1
        )

    def _beat(self, sync: str, epoch: int, over: threading.Event) -> None:
        """A long plan writes nothing, and its lease goes on all the same."""
        while not over.wait(self._timing.renew):
            with suppress(ActivationsError):  # whoever writes next is told
                if not self.renew(sync, epoch):
                    return

    # -- start -------------------------------------------------------------------------------------------------

    def _check_clock(self, host_now: Callable[[], datetime]) -> None:
        """Deadlines are kept by the host's clock, and leases by the server's."""
        before = host_now()
        [(there,)] = self.rows("select clock_timestamp()")
        skew = max((before - there).total_seconds(), (there - host_now()).total_seconds())
        if skew > self._timing.skew:
            raise ActivationsError(
                f"the clocks of this host and of the journal's server differ by {skew:.1f} s, and more than {self._timing.skew:g} s would let two hosts work on one sync. Synchronise both with a time server"
            )

    def _lay_out(self, schema: str) -> None:
        """A new journal gets our layout; one of another version is not guessed at."""
        if not self._has_layout(schema):
            with self.transaction():
                self.rows("select pg_advisory_xact_lock(hashtext(?))", f"journal {schema}")
                if not self._has_layout(schema):  # somebody may have been faster
                    self._create(schema)
        [(found,)] = self.rows("select value from meta where key = 'layout'")
        if int(found) != VERSION:
            raise ActivationsError(
                f"the journal in the schema {schema} was written by another version of this program (layout {found}, not {VERSION}). Use that version, or see in CHANGELOG.md how to move on"
            )

    def _has_layout(self, schema: str) -> bool:
        # `to_regclass` answers from a cache that waiting for an advisory lock does not refresh.
        query = "select 1 from pg_catalog.pg_tables where schemaname = ? and tablename = 'meta'"
        return bool(self.rows(query, schema))

    def _create(self, schema: str) -> None:
        # Even `if not exists` asks for the right to create schemas, which the engine need not have.
        if not self.rows("select 1 from information_schema.schemata where schema_name = ?", schema):
            self.run(f"create schema {schema}")
        for statement in statements("schema.sql", _WORDS):
            self.run(statement)
        self.run("insert into meta values ('layout', ?)", str(VERSION))


def _connect(dsn: str) -> psycopg.Connection[tuple[Any, ...]]:
    try:
        check_dsn(dsn)
        return psycopg.connect(
            dsn,
            autocommit=True,
            connect_timeout=10,
            application_name="activations journal",
            keepalives_idle=10,
            keepalives_interval=5,
            keepalives_count=3,
            tcp_user_timeout=15_000,
        )
    except psycopg.OperationalError as error:
        raise ActivationsError(
            f"the journal's server cannot be reached ({_last_line(error)}). Check `journal: dsn` in project.yml and that the server runs"
        ) from None
    except psycopg.ProgrammingError:  # its text repeats the DSN
        raise ActivationsError(
            f"`journal: dsn` in project.yml leads to something that is no connection string. {DSN_FIX}"
        ) from None


@contextmanager
def _own_errors() -> Iterator[None]:
    """The server's texts may quote values; those about the connection and about locks do not."""
    try:
        yield
    except (errors.InsufficientPrivilege, errors.UndefinedTable, errors.InvalidSchemaName):
        raise ActivationsError(
            "the role of `journal: dsn` may not create the journal's schema, or not use what is in it. Create the schema for it: `create schema … authorization ROLE`"
        ) from None
    except psycopg.Error as error:
        what = _last_line(error) if isinstance(error, psycopg.OperationalError) else type(error).__name__
        raise ActivationsError(
            f"the journal on Postgres cannot be used ({what}). Nothing that was recorded is lost; see that the server runs, and run the sync again"
        ) from None


def _last_line(error: psycopg.Error) -> str:
    text = error.diag.message_primary or str(error).strip()
    return text.splitlines()[-1] if text else "no answer"


@cache
def _sql(statement: str) -> bytes:
    return statement.replace("?", "%s").encode()
