"""Who said no since the warehouse was built."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from activations.journal.base import Base, iso, time

CLOCKS_DIFFER = timedelta(seconds=2)
"""Twice the largest difference between the clocks of two hosts."""


class Suppressions(Base):
    def suppress(
        self, said: Mapping[str, Iterable[str]], *, channel: str, reason: str, source: str
    ) -> datetime:
        """From the next claim on, nothing but a removal leaves for these digests on this channel (or `all`). `said`: the
        digest of what was named → the digests of all that it stands for. Returns when that is effective: what was
        claimed before may have them in it, and may leave until then."""
        with self._store.transaction():
            self._next("suppression")
            now = self._now()
            self._store.many(
                "insert into suppression (digest, named, channel, reason, source, committed_at) values (?, ?, ?, ?, ?, ?)",
                [
                    (d, named, channel, reason, source, iso(now))
                    for named, all_of in said.items()
                    for d in all_of
                ],
            )
            effective_at = max(now, self._last_departure() or now)
            event = {"event": "suppressed", "channel": channel, "reason": reason, "source": source}
            self._append_audit(event | {"effective_at": iso(effective_at)})
        return effective_at

    def _last_departure(self) -> datetime | None:
        """Whoever claims and whoever suppresses come one after the other, so no other claim is without the "no"."""
        send_by = time(self._one("select max(send_by) from batch where state = 'in_flight'"))
        return send_by + CLOCKS_DIFFER if send_by else None

    def lift(self, named: Iterable[str], *, channel: str, reason: str, source: str) -> int:
        """Take back all that was said by naming these, and nothing that the same people said by another name. Returns of
        how many of them there was something."""
        with self._store.transaction():
            self._next("suppression")
            lifted = sum(
                self._store.run("delete from suppression where named = ? and channel = ?", one, channel) > 0
                for one in named
            )
            self._append_audit({"event": "lifted", "channel": channel, "reason": reason, "source": source})
        return lifted

    def suppressed_digests(self, channel: str) -> frozenset[str]:
        """Of everybody who said no: the same set until somebody does again. Within a transaction nobody can before its
        end, so who claims and who suppresses come one after the other."""
        # The latest line would not do for "nothing new": Postgres commits sequence numbers out of order.
        query = "select value from counter where name = 'suppression'"
        changes = int(self._one(query + self._store.shared))
        known = self._said_no.get(channel)
        if known is None or known[0] != changes:
            rows = self._store.rows("select digest from suppression where channel in (?, 'all')", channel)
            known = self._said_no[channel] = (changes, frozenset(digest for (digest,) in rows))
        return known[1]
