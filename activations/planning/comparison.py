"""Scope against what the destination holds, as expressions.

    known       one row per row the destination holds or may hold: snapshot overlaid by the journal's open rows
    difference  scope ⟗ known on (row_key, identity), without the unchanged rows

A changed identifier is therefore two rows, a removal of the old identity and an addition of the new one, without a
rule of its own. Every comparison is null-safe because hashes of canonical text are compared. `held` is the snapshot, or
those of its rows that the sieve leaves.
"""

from __future__ import annotations

from dataclasses import dataclass

import sqlglot.expressions as exp
from sqlglot import condition, select

from activations.config import Sync
from activations.model import SyncMode
from activations.planning.statements import (
    DIFFERENCE,
    DUPLICATE_KEY,
    IMPOSSIBLE_DATE,
    KNOWN,
    OPEN_ROWS,
    SCOPE,
    SNAPSHOT,
    SUPPRESSED,
)

_KEPT_IN_DIFFERENCE = (
    "row_key", "identity", "payload_hash", "sieve", "field_marks", "old_hash", "old_marks", "destination_key", "sealed",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Comparison:
    """The statements of one sync; they know nothing of its audience but `scope`."""

    sync: Sync

    # -- known -------------------------------------------------------------------------------------------------

    def known(self, held: exp.Table) -> exp.Select:
        """What the destination holds by its own word, overlaid by what the journal has not settled."""
        snapshot = (
            select("primary_key", "identity", "payload_hash", "destination_key", "sieve", "field_marks")
            .from_(held.copy())
            .where(exp.column("sync").eq(self.sync.name))
            .subquery("s")
        )
        return (
            select(
                "coalesce(s.primary_key, o.row_key) as row_key",
                "coalesce(s.identity, o.identity) as identity",
                "s.payload_hash",
                "s.sieve",
                "s.field_marks",
                "coalesce(s.destination_key, o.destination_key) as destination_key",
                "o.sealed",
                "o.state",
                "o.payload_hash as open_hash",
                "coalesce(o.maybe, false) as is_uncertain",
                "coalesce(o.is_due, false) as is_due",
                "s.primary_key is not null as is_acknowledged",
                "s.primary_key is not null or coalesce(o.maybe, false) as may_hold",
            )
            .from_(snapshot)
            .join(
                f"{OPEN_ROWS} as o",
                join_type="full",
                on="o.row_key = s.primary_key and o.identity = s.identity",
            )
        )

    # -- difference --------------------------------------------------------------------------------------------

    def difference(self) -> exp.Select:
        """The rows that are not simply unchanged, each with a verdict: an operation, or `waiting:…`, or `invalid:…`."""
        append = self.sync.mode is SyncMode.APPEND
        on = "k.row_key = d.row_key" if append else "k.row_key = d.row_key and k.identity = d.identity"
        desired = select("*").from_(SCOPE).where("verdict = 'in_scope'").subquery("d")
        verdict = self._append_verdict() if append else self._state_verdict()
        compared = (
            select(
                "coalesce(d.row_key, k.row_key) as row_key",
                "coalesce(d.identity, k.identity) as identity",
                "d.payload_hash",
                "d.sieve",
                "d.field_marks",
                "k.payload_hash as old_hash",
                "k.field_marks as old_marks",
                "k.destination_key",
                "k.sealed",
                exp.alias_(verdict, "verdict"),
            )
            .from_(desired)
            .join(f"{KNOWN} as k", join_type="full", on=on)
        )
        return select("*").from_(compared.subquery("compared")).where("verdict <> 'unchanged'")

    def _state_verdict(self) -> exp.Expr:
        kept = f"""k.row_key in (select row_key from {SCOPE} where verdict in ('{DUPLICATE_KEY}', '{IMPOSSIBLE_DATE}'))
            and k.row_key not in (select row_key from {SCOPE} where verdict = '{SUPPRESSED}')"""
        leaves = "'removed'" if self.sync.mode is SyncMode.MIRROR else "'unchanged'"
        return condition(
            f"""case
                when d.row_key is not null then case
                    when k.row_key is null then 'added'
                    when k.state = 'rejected' and k.open_hash = d.payload_hash then 'waiting:rejected'
                    when k.state = 'rejected' and k.is_uncertain and k.is_acknowledged then 'changed'
                    when k.is_due and k.is_acknowledged then 'changed'
                    when k.is_due then 'added'
                    when not k.is_acknowledged then 'added'
                    when k.payload_hash is distinct from d.payload_hash then 'changed'
                    when k.state = 'settling' then 'waiting:settling'
                    else 'unchanged' end
                when not k.may_hold then 'unchanged'
                when ({kept}) then 'unchanged'
                when k.state = 'settling' and not k.is_due and not k.is_acknowledged then 'unchanged'
                else {leaves} end"""
        )

    @staticmethod
    def _append_verdict() -> exp.Expr:
        """An occurrence is sent once. What was refused or is in doubt waits for a person, never for the next run."""
        return condition(
            """case
                when d.row_key is null then 'unchanged'
                when k.row_key is null and d.deferral is not null then 'waiting:' || d.deferral
                when k.row_key is null then 'added'
                when k.is_acknowledged then 'unchanged'
                else 'waiting:' || k.state end"""
        )

    def without_shared_identities(self, *, is_sieved: bool) -> exp.Select:
        """One identity belongs to one row: the one that holds it already, else the smallest key. The others are
        invalid, and when the holder leaves, its successor is added by the run after that removal was acknowledged."""
        firsts = (
            select("identity", "min(row_key) as row_key")
            .from_(DIFFERENCE)
            .where("verdict = 'added'")
            .group_by("identity")
        )
        holders = self._holders(is_sieved)
        verdict = """case when d.verdict = 'added' and d.row_key <> coalesce(holders.row_key, firsts.row_key)
                     then 'invalid:shared_identifier' else d.verdict end as verdict"""
        on = "{0}.identity = d.identity and d.verdict = 'added'"
        return (
            select(*(f"d.{name}" for name in _KEPT_IN_DIFFERENCE), verdict)
            .from_(f"{DIFFERENCE} as d")
            .join(firsts.subquery("firsts"), join_type="left", on=on.format("firsts"))
            .join(holders.subquery("holders"), join_type="left", on=on.format("holders"))
        )

    def _holders(self, is_sieved: bool) -> exp.Query:
        """Who has an identity: the first that may have it among the rows looked at, and of those the sieve passed."""
        near = select("identity", "row_key").from_(KNOWN).where("may_hold", *self._only_members())
        if not is_sieved:
            return (
                select("identity", "min(row_key) as row_key")
                .from_(near.subquery("near"))
                .group_by("identity")
            )
        far = (
            select("identity", "primary_key as row_key")
            .from_(exp.alias_(SNAPSHOT.copy(), "s", table=True))
            .where(
                exp.column("sync").eq(self.sync.name),
                f"identity in (select identity from {DIFFERENCE} where verdict = 'added')",
                f"not exists (select 1 from {KNOWN} as k where k.row_key = s.primary_key and k.identity = s.identity)",
            )
        )
        both = exp.union(near, far, distinct=False)
        return (
            select("identity", "min(row_key) as row_key").from_(both.subquery("either")).group_by("identity")
        )

    def _only_members(self) -> list[str]:
        """Nobody is removed by an upsert, so there only a row that is still in scope keeps an identity."""
        members = f"row_key in (select row_key from {SCOPE} where verdict = 'in_scope')"
        return [members] if self.sync.mode is SyncMode.UPSERT else []

    def resifted(self) -> exp.Select:
        """Rows that are what the destination holds, and whose hash in the snapshot is another one's or none."""
        return (
            select("k.row_key", "k.identity", "d.payload_hash", "d.sieve", "d.field_marks")
            .from_(f"{SCOPE} as d")
            .join(f"{KNOWN} as k", on="k.row_key = d.row_key and k.identity = d.identity")
            .where(
                "d.verdict = 'in_scope'",
                "k.is_acknowledged",
                "k.payload_hash = d.payload_hash",
                "d.sieve is distinct from k.sieve",
            )
        )

    # -- counts ------------------------------------------------------------------------------------------------

    @staticmethod
    def scope_counts() -> exp.Select:
        return select("verdict", "count(*)").from_(SCOPE).group_by("verdict")

    @staticmethod
    def difference_counts() -> exp.Select:
        return select("verdict", "count(*)").from_(DIFFERENCE).group_by("verdict")

    def any_held(self) -> exp.Select:
        return select("1").from_(SNAPSHOT.copy()).where(exp.column("sync").eq(self.sync.name)).limit(1)

    @staticmethod
    def held_count() -> exp.Select:
        """How many rows the destination holds or may hold."""
        return select("count(*)").from_(KNOWN).where("may_hold")

    @staticmethod
    def asserted_again() -> exp.Select:
        """Additions and changes by verdict that are rows in doubt, asserted once more: those passed the guards when they
        were first planned, and have to settle without anybody's help."""
        return (
            select("d.verdict", "count(*)")
            .from_(f"{DIFFERENCE} as d")
            .join(f"{OPEN_ROWS} as o", on="o.row_key = d.row_key and o.identity = d.identity")
            .where("d.verdict in ('added', 'changed') and coalesce(o.is_due, false)")
            .group_by("d.verdict")
        )

    def closed_rejections(self) -> exp.Select:
        """Refused rows that nobody wants any more, or that are what the destination holds again. A message stays the
        same one when its address is corrected."""
        names = ["row_key"] if self.sync.mode is SyncMode.APPEND else ["row_key", "identity"]
        wanted = select(*names).from_(DIFFERENCE).where("verdict = 'waiting:rejected'")
        planned = select(*names).from_(DIFFERENCE).where("verdict in ('added', 'changed', 'removed')")
        return (
            select("row_key", "identity")
            .from_(OPEN_ROWS)
            .where("state = 'rejected' and not maybe")
            .where(
                exp.Not(
                    this=exp.In(
                        this=exp.Tuple(expressions=[exp.column(name) for name in names]),
                        query=exp.union(wanted, planned).subquery(),
                    )
                )
            )
        )
