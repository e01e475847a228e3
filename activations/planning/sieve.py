"""Looking closely at only those rows that can have changed.

The snapshot keeps, beside the payload's hash, a 64-bit hash of the row as it was read (`sieve`). Its one meaning: while
the audience has a row with this key and this hash, its identity and payload are those of the snapshot's row. The hash
covers the key, every mapped column, their types, the mapping, the installation's key, the statements themselves and
the warehouse's version, so whatever could make another payload of the same row makes another hash.

A row is *settled*, and not looked at, when hash and key meet one row of the snapshot and the person is eligible and not
held out by today's relations. Rows with something in the journal, with a suppressed identifier, or whose key stands
twice are looked at whatever their hash says. That nothing else was passed over is not assumed but counted: every row
of the audience and of the snapshot is either looked at, or half of one settled pair. Two different rows with one hash
pass each other unseen once in 2**64 changed rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import sqlglot.expressions as exp
from sqlglot import condition, select

from activations.planning.expressions import table
from activations.planning.inputs import content, sums
from activations.planning.statements import OPEN_ROWS, SNAPSHOT, Statements
from activations.warehouses import Session

SIFTED, EXTRA, SOURCE, HELD = "planned_sifted", "planned_extra_keys", "planned_source", "planned_held"
LARGEST_SHARE = 0.2
"""A larger share of rows to look at, and looking at all of them is as fast."""
FEW = 10_000
"""Rows of an audience of which all are looked at: finding out which have changed takes as long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sifted:
    """What the sieve leaves to look at."""

    settled: int
    """Rows of the audience that are what the destination holds."""
    rules_are_single: bool
    """No settled person has two rules."""
    audience: str | None
    """The content of the whole audience, where every row of it was compared once."""


def is_worthwhile(session: Session, statements: Statements) -> bool:
    """Whether it is cheaper to find out what has changed than to look at everybody."""
    return statements.has_sieve and session.rows(statements.audience_size()) > [(FEW,)]


def sift(session: Session, statements: Statements) -> Sifted | None:
    """Make SOURCE and HELD; None when everything has to be looked at after all. Only where `is_worthwhile`."""
    sieve = Sieve(statements)
    if not session.rows(sieve.any_hash()):
        return None
    [(rows,)], [(held,)] = session.rows(statements.audience_size()), session.rows(sieve.snapshot_size())
    session.keep(SIFTED, sieve.compare())
    pairs = dict(session.rows(sieve.pairs()))
    settled = pairs.get("settled", 0)
    if settled < (1 - LARGEST_SHARE) * rows or not settled:
        return None
    [(compared, *found)] = session.rows(sieve.compared())
    single_rows = compared == rows
    single_held = sum(pairs.get(kind, 0) for kind in ("settled", "differs", "gone")) == held
    session.keep(EXTRA, sieve.extra_keys(repeated=not (single_rows and single_held)))
    session.keep(SOURCE, sieve.source())
    session.keep(HELD, sieve.held())
    [(near,)], [(near_held,)] = session.rows(_size(SOURCE)), session.rows(_size(HELD))
    if rows - near != held - near_held:
        return None
    return Sifted(
        settled=rows - near,
        rules_are_single=single_rows,
        audience=content(rows, *found) if single_rows else None,
    )


@dataclass(frozen=True, slots=True)
class Sieve:
    """The statements. They name rows of the snapshot by `rowid`, so a warehouse that can hash rows has to have it."""

    statements: Statements

    def any_hash(self) -> exp.Select:
        return select("1").from_(SNAPSHOT.copy()).where(self._mine(), "sieve is not null").limit(1)

    def snapshot_size(self) -> exp.Select:
        return select("count(*)").from_(SNAPSHOT.copy()).where(self._mine())

    def compare(self) -> exp.Select:
        """Every pair of audience row and snapshot row by kind; all settled pairs are one line. With the sums of the
        audience's rows, which cost little here."""
        kind = """case when a.sieve is null then 'gone' when s.place is null then 'new'
                  when a.is_wanted and a.sieve = s.sieve then 'settled' else 'differs' end"""
        paired = (
            select("a.key", "a.sieve", "s.place", exp.alias_(condition(kind), "kind"))
            .from_(self._rows().subquery("a"))
            .join(self._acknowledged().subquery("s"), join_type="full", on="a.key = s.key")
        )
        one_line = "case when kind <> 'settled' then {name} end as {name}"
        return (
            select("kind", *(one_line.format(name=name) for name in ("key", "place")), "count(*) as pairs")
            .select(*sums(self.statements.warehouse, [exp.column("sieve")]))
            .from_(paired.subquery("paired"))
            .group_by("1", "2", "3")
        )

    @staticmethod
    def pairs() -> exp.Select:
        return select("kind", "cast(sum(pairs) as bigint)").from_(SIFTED).group_by("kind")

    @staticmethod
    def compared() -> exp.Select:
        """How many rows of the audience, and their sums."""
        return select("sum(pairs)", "sum(sum_0)", "sum(sum_1)").from_(SIFTED).where("kind <> 'gone'")

    def extra_keys(self, *, repeated: bool) -> exp.Expr:
        """Keys to look at whatever the hash says."""
        queries = [select(exp.alias_(self._parsed("row_key"), "key")).from_(OPEN_ROWS)]
        if repeated:
            queries += [self._repeated(self._keys()), self._repeated(self._acknowledged())]
        if self.statements.has_suppressions:
            queries.append(self._keys().where(self.statements.is_suppressed("a")))
        return queries[0] if len(queries) == 1 else exp.union(*queries)

    def source(self) -> exp.Expr:
        """The audience's rows to look at, as they are."""
        looked_at = exp.union(select("key").from_(SIFTED), select("key").from_(EXTRA))
        by_key = self._read().where(exp.In(this=self._key(), query=looked_at.subquery()))
        return exp.union(by_key, self._read().where(self._key().is_(exp.null())), distinct=False)

    def held(self) -> exp.Select:
        """The snapshot's rows to look at."""
        places = exp.union(
            select("place").from_(SIFTED),
            select("place")
            .from_(self._acknowledged().subquery("s"))
            .where(f"key in (select key from {EXTRA})"),
        )
        return (
            select("*")
            .from_(SNAPSHOT.copy())
            .where(exp.In(this=exp.column("rowid"), query=places.subquery()))
        )

    def people(self) -> exp.Query:
        """The keys of everybody who is looked at."""
        return exp.union(
            select(exp.column(self.statements.person_key)).from_(SOURCE),
            select(self._parsed("primary_key")).from_(HELD),
        )

    # -- parts -------------------------------------------------------------------------------------------------

    def _mine(self) -> exp.Expr:
        return exp.column("sync").eq(self.statements.sync.name)

    def _key(self) -> exp.Expr:
        return exp.column(self.statements.person_key, "a")

    def _parsed(self, name: str) -> exp.Expr:
        parsed = self.statements.warehouse.parsed(exp.column(name), self.statements.person_type or "text")
        return exp.column(name) if parsed is None else parsed

    def _keys(self) -> exp.Select:
        return select(exp.alias_(self._key(), "key")).from_(
            exp.alias_(self.statements.source, "a", table=True)
        )

    def _read(self) -> exp.Select:
        return select(*(exp.column(name, "a") for name in self.statements.columns)).from_(
            exp.alias_(self.statements.source, "a", table=True)
        )

    def _rows(self) -> exp.Select:
        wanted = "coalesce(e.is_eligible, false)"
        query = (
            self._keys()
            .select(exp.alias_(self.statements.sieve("a"), "sieve"))
            .join(
                table(self.statements.eligibility, "e"),
                join_type="left",
                on=exp.and_(self.statements.same_person("e"), *self.statements.rule("e")),
            )
        )
        if self.statements.sync.holdout:
            query = self.statements.join_holdouts(query)
            wanted += " and not coalesce(h.is_held_out, true)"
        return query.select(exp.alias_(condition(wanted), "is_wanted"))

    def _acknowledged(self) -> exp.Select:
        parsed = exp.alias_(self._parsed("primary_key"), "key")
        return select(parsed, "sieve", "rowid as place").from_(SNAPSHOT.copy()).where(self._mine())

    @staticmethod
    def _repeated(keys: exp.Select) -> exp.Select:
        return select("key").from_(keys.subquery("keys")).group_by("key").having("count(*) > 1")


def _size(name: str) -> exp.Select:
    return select("count(*)").from_(name)
