"""The SQL of a plan's rows: what is written into the plan file."""

from __future__ import annotations

from dataclasses import dataclass

import sqlglot.expressions as exp
from sqlglot import condition, select

from activations.digests import SEPARATOR
from activations.model import SyncMode
from activations.planning.expressions import interleave, literal, pipe, table, text
from activations.planning.freezing import CONTENT
from activations.planning.statements import DIFFERENCE, SCOPE, SUPPRESSED, URGENT, Statements

SUSPECTS, SHARED = "planned_suspects", "planned_shared"

_KEPT = (
    "row_key", "identity", "verdict", "payload_hash", "destination_key", "sealed", "pseudonym", "cause", "sieve",
    "field_marks", "old_hash", "old_marks",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Rows:
    """The statements; all of them yield the same columns."""

    statements: Statements

    def removals(self) -> exp.Select:
        """First those that nobody may hold back."""
        rules = self.statements
        nothing = select("*").from_(rules.source).where(exp.false()).subquery("a")
        query = (
            select("p.*", exp.alias_(self._cause(), "cause"), *rules.payload("a"))
            .from_(self._difference("verdict = 'removed'"))
            .join(nothing, join_type="left", on=exp.false())
            .join(table(rules.eligibility, "e"), join_type="left", on=self._eligibility_of_removed())
        )
        return self._finished(query).order_by("is_urgent desc", "row_key", "identity")

    def assertions(self, source: exp.Table) -> exp.Select:
        """Additions and changes, in whatever order they come."""
        rules = self.statements
        query = (
            select("p.*", exp.alias_(_nothing("text"), "cause"), *rules.payload("a"))
            .from_(self._difference("verdict in ('added', 'changed')"))
            .join(
                exp.alias_(source.copy(), "a", table=True),
                on=exp.EQ(this=rules.row_key("a"), expression=exp.column("row_key", "p")),
            )
        )
        return self._finished(query)

    def first(self) -> exp.Select:
        """Every row of the audience with its verdict, in one pass, while the destination holds nobody."""
        rules = self.statements
        payload = [exp.column(name, "s", quoted=True) for name in rules.payload_names]
        query = (
            select(
                "s.row_key",
                "s.identity",
                exp.alias_(self._first_verdict(), "verdict"),
                "s.payload_hash",
                "s.sieve",
                "s.field_marks",
                *(exp.alias_(_nothing(kind), name) for name, kind in _UNKNOWN.items()),
                *payload,
            )
            .from_(rules.scoped(rules.source, "s", with_payload=True))
            .join(SHARED, join_type="left", on=f"{SHARED}.row_key = s.row_key")
        )
        return self._finished(query)

    def none(self) -> exp.Select:
        """No row, with the columns of every row."""
        types = {**_UNKNOWN, **dict.fromkeys(("row_key", "identity", "verdict", "payload_hash"), "text")}
        types |= {"sieve": "bigint", "field_marks": "int[]"}
        columns = [exp.alias_(_nothing(kind), name) for name, kind in types.items()]
        nobody = exp.alias_(self.statements.source, "a", table=True)
        return self._finished(
            select(*columns, *self.statements.payload("a")).from_(nobody).where(exp.false())
        )

    # -- identities that several new rows share ------------------------------------------------------------------

    def suspects(self) -> exp.Select:
        """Rows whose identity may be another row's too: a cheap look, that finds too many rather than too few."""
        rules = self.statements
        values = self._likeness()
        present = exp.or_(*(value.is_(exp.null()).not_() for value in self._likeness()))
        hashed = rules.warehouse.row_hash("", values) or pipe(
            [exp.func("coalesce", value, literal("")) for value in values]
        )
        likeness = exp.case().when(present, hashed)
        audience = exp.alias_(rules.source, "a", table=True)
        repeated = (  # a condition on the rows would make the warehouse work their values out twice
            select("likeness")
            .from_(select(exp.alias_(likeness, "likeness")).from_(audience.copy()).subquery("alike"))
            .group_by("likeness")
            .having("count(likeness) > 1")
        )
        return select("a.*").from_(audience).where(exp.In(this=likeness.copy(), query=repeated.subquery()))

    @staticmethod
    def nobody() -> exp.Select:
        """SHARED where every row is a message of its own."""
        return select(exp.alias_(_nothing("text"), "row_key")).where(exp.false())

    def shared(self) -> exp.Select:
        """All but the smallest key of each identity that several rows in scope have."""
        scope = self.statements.scoped(exp.to_table(SUSPECTS), "s")
        ranked = (
            select("row_key", "row_number() over (partition by identity order by row_key) as rank")
            .from_(scope)
            .where("verdict = 'in_scope'")
        )
        return select("row_key").from_(ranked.subquery("ranked")).where("rank > 1")

    def _likeness(self) -> list[exp.Expr]:
        """Equal wherever the identity is. The form need not be asked for where a malformed value is no identity at all."""
        columns = self.statements.sync.key_columns
        if len(columns) > 1:
            values = [self.statements.identifier(column, "a") for column in columns]
        else:
            values = [exp.func("nullif", exp.func("trim", exp.column(c, "a")), literal("")) for c in columns]
        return [exp.func("lower", value) for value in values]

    # -- parts -------------------------------------------------------------------------------------------------

    def _difference(self, where: str) -> exp.Subquery:
        return select("*").from_(DIFFERENCE).where(where).subquery("p")

    def _first_verdict(self) -> exp.Expr:
        case = exp.case().when(condition("s.verdict <> 'in_scope'"), condition("s.verdict"))
        if self.statements.sync.mode is SyncMode.APPEND:
            case = case.when(condition("s.deferral is not null"), condition("'waiting:' || s.deferral"))
        case = case.when(condition(f"{SHARED}.row_key is not null"), literal("invalid:shared_identifier"))
        return case.else_(literal("added"))

    def _cause(self) -> exp.Expr:
        """Why a person has to leave."""
        case = exp.case().when(condition("coalesce(e.is_eligible, true)"), literal("left_audience"))
        for blocker in URGENT:  # whatever else stands before it
            case = case.when(condition(f"',' || e.blockers || ',' like '%,{blocker},%'"), literal(blocker))
        reason = case.else_(condition("coalesce(e.first_blocker, 'unknown')"))
        if not self.statements.has_suppressions:
            return reason
        of_the_row = condition(
            f"exists (select 1 from {SCOPE} as x where x.row_key = p.row_key and x.verdict = '{SUPPRESSED}')"
        )
        of_who_left = self.statements.has_suppressed(exp.column("row_key", "p"))
        return exp.case().when(exp.or_(of_the_row, of_who_left), literal("suppressed")).else_(reason)

    def _eligibility_of_removed(self) -> exp.Expr:
        """By the key's own type where it has one; a key that only reads like somebody else's is nobody's."""
        rules = self.statements
        row_key = exp.column("row_key", "p")
        key = rules.warehouse.parsed(row_key, rules.person_type) if rules.person_type else None
        if key is None:
            same = [exp.EQ(this=text(rules.person_key, "e"), expression=row_key)]
        else:
            same = [
                exp.EQ(this=exp.column(rules.person_key, "e"), expression=key),
                exp.EQ(this=exp.cast(key.copy(), "text"), expression=row_key.copy()),
            ]
        return exp.and_(*same, *rules.rule("e"))

    def _finished(self, query: exp.Select) -> exp.Select:
        """With what is worked out of each row alone."""
        kept = [exp.column(name, "q") for name in _KEPT if name != "pseudonym"]
        payload = [exp.column(name, "q", quoted=True) for name in self.statements.payload_names]
        urgent = exp.In(this=exp.column("cause", "q"), expressions=[literal(reason) for reason in URGENT])
        return select(
            *kept,
            exp.alias_(self._pseudonym(), "pseudonym"),
            *payload,
            exp.alias_(condition("q.verdict in ('added', 'changed', 'removed')"), "is_planned"),
            exp.alias_(exp.func("coalesce", urgent, exp.false()), "is_urgent"),
            *(exp.alias_(self._content(seed), name) for seed, name in enumerate(CONTENT)),
        ).from_(query.subquery("q"))

    def _pseudonym(self) -> exp.Expr:
        """As `Digester` makes it: of the person at this destination; of an occurrence where occurrences are sent."""
        names = ("identity", "row_key") if self.statements.sync.mode is SyncMode.APPEND else ("identity",)
        parts = interleave([exp.column(name, "q") for name in names], literal(SEPARATOR))
        return self.statements.pseudonyms.sql(pipe(parts), self.statements.warehouse.sha256)

    def _content(self, seed: int) -> exp.Expr:
        """A hash of what an approval binds to. See `freezing.Frozen.content_hash`."""
        names = ("row_key", "identity", "verdict", "payload_hash")
        return self.statements.warehouse.text_hash(seed, [exp.column(name, "q") for name in names])


_UNKNOWN = {
    "destination_key": "text",
    "sealed": "blob",
    "cause": "text",
    "old_hash": "text",
    "old_marks": "int[]",
}
"""What a row that nobody holds yet cannot have."""


def _nothing(data_type: str) -> exp.Expr:
    return exp.cast(exp.null(), data_type)
