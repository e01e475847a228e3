"""What the other side holds, in one SQLite file, so that a second demo meets the same lists and audiences."""

from __future__ import annotations

import hashlib
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from activations.errors import MachineError

SCHEMA = (Path(__file__).parent / "schema.sql").read_text(encoding="utf-8")
KEPT_REQUESTS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A place inside an account that a sync names: its list or audience exists in the sandbox from then on."""

    kind: str
    target: Mapping[str, Any]
    name: str


def home_of(folder: Path) -> str:
    """A name of the folder that tells nobody where it is."""
    return hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]


def _open(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
    db.row_factory = sqlite3.Row
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "busy_timeout=5000", "secure_delete=ON"):
        db.execute(f"PRAGMA {pragma}")
    db.executescript(SCHEMA)
    return db


@contextmanager
def _own_errors() -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        raise MachineError(
            f"the sandbox cannot remember in sandbox/state.sqlite3 ({error}). Let it be written, and free its disk if that is full"
        ) from None


class State:
    """One connection, one writer at a time. The stand-ins own their tables; this class owns none but the log."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.home = home_of(folder)
        self._lock = threading.RLock()
        with _own_errors():
            self._db = _open(folder / "state.sqlite3")

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All of a request or nothing of it."""
        with self._lock, _own_errors():
            try:
                self._db.execute("BEGIN IMMEDIATE")
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:  # a full disk ends it by itself
                    self._db.execute("ROLLBACK")
                raise

    def rows(self, sql: str, *values: Any) -> list[sqlite3.Row]:
        with self._lock, _own_errors():
            return self._db.execute(sql, values).fetchall()

    def one(self, sql: str, *values: Any) -> sqlite3.Row | None:
        with self._lock, _own_errors():
            row: sqlite3.Row | None = self._db.execute(sql, values).fetchone()
            return row

    def only(self, sql: str, *values: Any) -> sqlite3.Row:
        """The row that must be there: this request wrote it, or was let in because of it."""
        row = self.one(sql, *values)
        if row is None:
            raise LookupError("the sandbox's state changed under a request")
        return row

    def count(self, sql: str, *values: Any) -> int:
        row = self.one(sql, *values)
        return int(row[0]) if row else 0

    def log(self, vendor: str, method: str, path: str, status: int, fault: str | None, ms: float) -> None:
        """Remember a request. Never its query: look-ups carry addresses there."""
        with self.transaction() as db:
            cursor = db.execute(
                "insert into requests (at, vendor, method, path, status, fault, milliseconds)"
                " values (?, ?, ?, ?, ?, ?, ?)",
                (time.time(), vendor, method, path, status, fault, round(ms, 1)),
            )
            last = cursor.lastrowid or 0
            if last % 1_000 == 0:
                db.execute("delete from requests where request_id <= ?", (last - KEPT_REQUESTS,))

    def forget(self) -> None:
        """Everything that was sent. Lists and audiences stay: somebody made them."""
        kept = {"klaviyo_lists", "meta_audiences", "sqlite_sequence"}
        names = [row["name"] for row in self.rows("select name from sqlite_master where type = 'table'")]
        with self.transaction() as db:
            for name in set(names) - kept:
                db.execute(f"delete from {name}")

    def close(self) -> None:
        with self._lock:
            self._db.close()
