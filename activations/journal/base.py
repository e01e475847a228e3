"""What every part of the journal stands on: a store, a clock, the fence, counters and the audit trail."""

from __future__ import annotations

import hashlib
import hmac
import json
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, TypeVar

from activations.errors import ActivationsError, Fenced, SecretError
from activations.journal.commits import GroupCommit
from activations.journal.records import Lease
from activations.journal.store import PARAMETERS, Store

T = TypeVar("T")


class Base:
    """Methods that take a `lease` fail with Fenced once a newer engine holds the sync."""

    def __init__(
        self, store: Store, *, audit_key: bytes, key_check: str, now: Callable[[], datetime]
    ) -> None:
        self._store, self._audit_key, self._now = store, audit_key, now
        self._commits = GroupCommit(self._begin)
        self._in_group: dict[Any, Any] = {}
        self._said_no: dict[str, tuple[int, frozenset[str]]] = {}
        try:
            self.journal_id = self._identify(key_check)
        except BaseException:
            store.close()
            raise

    def close(self) -> None:
        self._store.close()

    @contextmanager
    def lease(self, sync: str, owner: str) -> Iterator[Lease]:
        """The right to work on the sync, and a new epoch. SyncBusy when somebody else has it."""
        with self._store.held(sync, owner) as epoch:
            yield Lease(sync=sync, epoch=epoch, owner=owner)

    @contextmanager
    def _fenced(self, lease: Lease) -> Iterator[None]:
        with self._begin():
            self._check_fence(lease)
            yield

    def _together(self, lease: Lease, work: Callable[[], T]) -> T:
        """As inside `_fenced`, together with what other threads of the same sync write at this moment."""

        def fenced() -> T:
            self._once(lease, lambda: self._check_fence(lease))
            return work()

        return self._commits.do(fenced)

    @contextmanager
    def _begin(self) -> Iterator[None]:
        with self._store.transaction():
            self._in_group.clear()
            yield

    def _once(self, what: Any, find: Callable[[], T]) -> T:
        """Found out once in this transaction: whatever it holds still until its end."""
        if what not in self._in_group:
            self._in_group[what] = find()
        found: T = self._in_group[what]
        return found

    def _check_fence(self, lease: Lease) -> None:
        if not self._store.renew(lease.sync, lease.epoch):
            raise Fenced(f"a newer engine took over the sync `{lease.sync}`. Nothing more is sent from here")

    def _identify(self, key_check: str) -> str:
        """The journal's id. With another hashing key no suppression and no message key would be found any more."""
        known = self._meta()
        if "journal_id" not in known:
            own = [("journal_id", uuid.uuid4().hex), ("key_check", key_check)]
            with self._store.transaction():
                self._store.many("insert into meta values (?, ?) on conflict do nothing", own)
            known = self._meta()  # somebody may have been faster
        if known["key_check"] != key_check:
            raise SecretError(
                "is not the key this journal was written with",
                file="hash.key",
                fix="Restore both from the same backup; hosts that share a journal need the same hash.key, so copy it from the first one",
            )
        return known["journal_id"]

    def _meta(self) -> dict[str, str]:
        return dict(self._store.rows("select key, value from meta"))

    # -- queries -----------------------------------------------------------------------------------------------

    def _one(self, query: str, *parameters: Any) -> Any:
        """The first value, or None where there is no row."""
        rows = self._store.rows(query, *parameters)
        return rows[0][0] if rows else None

    def _among(self, query: str, keys: Sequence[str], *before: Any, then: str = "") -> list[tuple[Any, ...]]:
        """A query that goes on with `in` these keys, so many at a time as a store takes."""
        found: list[tuple[Any, ...]] = []
        for start in range(0, len(keys), PARAMETERS):
            some = keys[start : start + PARAMETERS]
            marks = ", ".join("?" * len(some))
            found += self._store.rows(f"{query} in ({marks}) {then}", *before, *some)
        return found

    def _next(self, counter: str) -> int:
        """Counted in the transaction that it belongs to: no number is lost, and none is given out of turn."""
        return int(self._one("update counter set value = value + 1 where name = ? returning value", counter))

    # -- audit -------------------------------------------------------------------------------------------------

    def verify_audit(self) -> int:
        """The number of lines; ActivationsError when a line was changed, removed or reordered."""
        previous, count = "", 0
        lines = self._store.rows("select at, event, previous_hash, hash from audit order by seq")
        for count, (at, event, before, stored) in enumerate(lines, 1):
            if before != previous or stored != self._chain(previous, at, event):
                raise ActivationsError(
                    f"line {count} of the audit trail was altered. Restore the journal from a backup and find out who did it"
                )
            previous = stored
        if count != self._one("select value from counter where name = 'audit'"):
            raise ActivationsError(
                f"the audit trail ends after line {count}, and more were written. Restore the journal from a backup and find out who did it"
            )
        return count

    def _append_audit(self, event: Mapping[str, Any]) -> None:
        line = self._next("audit")
        previous = self._one("select hash from audit where seq = ?", line - 1) or ""
        at, text = iso(self._now()), json.dumps(event, sort_keys=True)
        self._store.run(
            "insert into audit values (?, ?, ?, ?, ?)",
            *(line, at, text, previous, self._chain(previous, at, text)),
        )

    def _chain(self, previous: str, at: str, event: str) -> str:
        return hmac.new(
            self._audit_key, "\x1f".join((previous, at, event)).encode(), hashlib.sha256
        ).hexdigest()


def iso(moment: datetime) -> str:
    """Of a fixed length, so that texts compare as times do."""
    return moment.isoformat(timespec="microseconds")


def time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
