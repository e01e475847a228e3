"""How an account at a destination may be called: shared by every sync and process that calls it."""

from __future__ import annotations

from datetime import datetime, timedelta

from activations.journal.base import Base, iso, time
from activations.journal.records import Lease


class Accounts(Base):
    """Times are of the sender's clock; clocks of hosts that share a journal differ by a second at most."""

    def not_before(self, account: str) -> datetime | None:
        """Until when the account asked to be left alone."""
        return time(self._one("select not_before from account where account = ?", account))

    def postpone(self, lease: Lease, account: str, until: datetime) -> None:
        """Leave the account alone until then; a longer wait that somebody was told stays."""
        with self._fenced(lease):
            self._store.run(
                "insert into account (account, not_before) values (?, ?) on conflict (account) do update set not_before = excluded.not_before "
                "where account.not_before is null or account.not_before < excluded.not_before",
                *(account, iso(until)),
            )

    def reserve(self, account: str, requests: int, interval: float) -> datetime:
        """Take `requests` places in the account's queue, `interval` seconds apart, that nobody else gets. Returns the
        moment of the first; it is after every wait the account asked for."""
        with self._store.transaction():
            [taken] = self._store.rows(  # the update changes nothing, but nobody else comes in between
                "insert into account (account) values (?) on conflict (account) do update set account = excluded.account returning not_before, next_slot",
                account,
            )
            not_before, next_slot = map(time, taken)
            soonest = max(filter(None, (self._now(), not_before)))
            longest = timedelta(seconds=60 + 100 * interval)
            is_queue = next_slot is not None and next_slot <= soonest + longest  # else a clock was set back
            first = max(soonest, next_slot) if next_slot and is_queue else soonest
            self._store.run(
                "update account set next_slot = ? where account = ?",
                *(iso(first + timedelta(seconds=requests * interval)), account),
            )
        return first
