"""The journal's store on SQLite: one file beside the engine, every commit synced to disk."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from activations.errors import ActivationsError, SyncBusy
from activations.journal.store import VERSION, statements

_WORDS = {
    "number": "integer primary key autoincrement",
    "reference": "integer",
    "bytes": "blob",
    "moment": "text",
    "strict": " strict",
    "keyed": " strict, without rowid",
}


_MACHINE = {
    sqlite3.SQLITE_FULL: "its disk is full. Free it and run this again",
    sqlite3.SQLITE_IOERR: "its disk cannot be read or written. Free it if it is full, else look at the disk, and run this again",
    sqlite3.SQLITE_READONLY: "it can only be read. Let the user who runs this write it, its folder and its disk",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened. Let the user who runs this write it and its folder, and free the disk if it is full",
    sqlite3.SQLITE_BUSY: "another program holds it. Stop that program and run this again",
    sqlite3.SQLITE_NOMEM: "there is no memory left. Free some and run this again",
}
"""What the machine did to us. The file is not to be blamed, and an older one would send messages again."""


class SQLiteStore:
    """One writer at a time in the whole file, so whoever is inside a transaction is alone."""

    shared = ""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._locks = path.parent / "locks"
        self._mutex = threading.RLock()
        self._name = path.name
        self._db = _open(path)

    def close(self) -> None:
        self._db.close()

    def run(self, statement: str, *parameters: Any) -> int:
        with self._mutex, self._own_errors():
            return self._db.execute(statement, parameters).rowcount

    def rows(self, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
        with self._mutex, self._own_errors():
            return self._db.execute(query, parameters).fetchall()

    def many(self, statement: str, parameters: Iterable[Sequence[Any]]) -> None:
        with self._mutex, self._own_errors():
            self._db.executemany(statement, parameters)

    @contextmanager
    def _own_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise _told(error, self._name) from None

    @contextmanager
    def transaction(self) -> Iterator[None]:
        with self._mutex, self._own_errors():
            try:
                self._db.execute("begin immediate")
                yield
                self._db.execute("commit")
            except BaseException:
                self._undo()
                raise

    def _undo(self) -> None:
        """After a full disk even this may fail; the file is then as it was before."""
        with suppress(sqlite3.Error):
            if self._db.in_transaction:
                self._db.execute("rollback")

    @contextmanager
    def held(self, sync: str, owner: str) -> Iterator[int]:
        """The kernel's lock, which only a living process can hold."""
        self._locks.mkdir(exist_ok=True, mode=0o700)
        with (self._locks / f"{sync}.lock").open("w") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise SyncBusy(
                    f"another process is running the sync `{sync}`. Wait for it to finish, or stop it"
                ) from None
            yield self._next_epoch(sync, owner)

    def _next_epoch(self, sync: str, owner: str) -> int:
        with self.transaction():
            [(epoch,)] = self.rows(
                "insert into lease (sync, epoch, owner) values (?, 1, ?) "
                "on conflict (sync) do update set epoch = epoch + 1, owner = excluded.owner returning epoch",
                *(sync, owner),
            )
        return int(epoch)

    def renew(self, sync: str, epoch: int) -> bool:
        return self.rows("select epoch from lease where sync = ?", sync) == [(epoch,)]


def _told(error: sqlite3.Error, name: str) -> ActivationsError:
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF  # above it: which kind of it
    if found := _MACHINE.get(code):
        return ActivationsError(f"the journal {name} cannot be used now: {found}. Leave the file as it is")
    return ActivationsError(
        f"the journal {name} cannot be used ({error}). Do not delete it, it knows what was sent. Restore the newest backup; messages sent since that was made would be sent again"
    )


def _open(path: Path) -> sqlite3.Connection:
    try:
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as error:
        raise ActivationsError(
            f"the journal {path.name} cannot be opened ({error.strerror}). Let the user who runs this write it and its folder"
        ) from None
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30)
    try:
        for pragma in ("journal_mode = wal", "synchronous = full", "secure_delete = on", "foreign_keys = on"):
            db.execute(f"pragma {pragma}")
        _lay_out(db, path)
    except sqlite3.DatabaseError as error:
        db.close()
        raise _told(error, path.name) from None
    except BaseException:
        db.close()
        raise
    return db


def _lay_out(db: sqlite3.Connection, path: Path) -> None:
    """A new journal gets our layout; one of another version is not guessed at."""
    if _layout(db) == VERSION:
        return
    db.execute("begin immediate")
    found = _layout(db)  # somebody may have been faster
    if found not in (0, VERSION):
        raise ActivationsError(
            f"the journal {path.name} was written by another version of this program (layout {found}, not {VERSION}). Use that version, or see in CHANGELOG.md how to move on"
        )
    if found == 0:
        for statement in statements("schema.sql", _WORDS):
            db.execute(statement)
        db.execute(f"pragma user_version = {VERSION}")
    db.execute("commit")


def _layout(db: sqlite3.Connection) -> int:
    [found] = db.execute("pragma user_version").fetchone()
    return int(found)
