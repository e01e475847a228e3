"""The SQL of planning, as expressions.

Three temporary relations, each one SELECT:

    scope       one row per audience row: key, identity, payload hash, verdict (in_scope, or why not)
    known       one row per row the destination holds or may hold: snapshot overlaid by the journal's open rows
    difference  scope ⟗ known on (row_key, identity), without the unchanged rows

A changed identifier is therefore two rows, a removal of the old identity and an addition of the new one, without a
rule of its own. Every column list is written once; every comparison is null-safe because hashes of canonical text
are compared. `source` is the audience, or those of its rows that the sieve leaves; `held` likewise of the snapshot.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import sqlglot.expressions as exp
from sqlglot import condition, select

from activations.config import Project, Sync
from activations.digests import SEPARATOR, Digester
from activations.manifest import Audience, Relation
from activations.model import SyncMode
from activations.planning.expressions import (
    canonical,
    in_calendar,
    interleave,
    literal,
    pipe,
    table,
    text,
)
from activations.planning.marks import mapping_mark, marked_columns
from activations.warehouses import Warehouse

URGENT = ("erased", "suppressed", "objection", "consent")
"""First blockers whose removals nothing may hold back: the person asked for it."""

SCOPE, KNOWN, DIFFERENCE = "planned_scope", "planned_known", "planned_difference"
OPEN_ROWS, SUPPRESSIONS, DUPLICATES = "planned_open_rows", "planned_suppressions", "planned_duplicates"
SNAPSHOT = exp.to_table("activation.sync_snapshot")

# Written out: [[:space:]] and [[:cntrl:]] are ASCII in one warehouse and Unicode in the next.
_SPACE = "\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_FORMS = {
    "email": f"^[^@{_SPACE}]+@[^@{_SPACE}]+[.][^@{_SPACE}]+$",
    "phone": r"^[+][1-9][0-9]{6,14}$",
}
_CONTROL = "[\x01-\x1f\x7f-\x9f]"
_DUPLICATE_KEY, _IMPOSSIBLE_DATE = "invalid:duplicate_key", "invalid:impossible_date"
"""The row is at fault, not the person: whom the destination holds stays there as they are."""
_KEPT_IN_DIFFERENCE = (
    "row_key", "identity", "payload_hash", "sieve", "field_marks", "old_hash", "old_marks", "destination_key", "sealed",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Statements:
    """The statements for one sync on one warehouse."""

    project: Project
    sync: Sync
    audience: Audience
    eligibility: Relation
    holdouts: Relation
    warehouse: Warehouse
    fingerprint: Digester
    suppression: Digester
    pseudonym: Digester
    person_type: str | None = None
    """The type of the person's key where audience, eligibility and holdouts agree on one: they are joined without a
    cast. None: as text."""
    column_types: Mapping[str, str] = field(default_factory=dict)
    """The audience's columns as the warehouse has them."""

    @property
    def source(self) -> exp.Table:
        return exp.table_(self.audience.relation.name, db=self.audience.relation.schema, quoted=True)

    # -- scope -------------------------------------------------------------------------------------------------

    def scope(self, source: exp.Table, *, has_suppressions: bool) -> exp.Select:
        """One row per row of the source: row_key, person, identity, payload_hash, deferral, verdict, and what the
        snapshot remembers beside the hash."""
        return self._scoped(source, has_suppressions, [])

    def scoped(
        self, source: exp.Table, alias: str, *, has_suppressions: bool, with_payload: bool = False
    ) -> exp.Subquery:
        """The same to select from; with everything that is sent, for who needs each row only once."""
        payload = [exp.column(name, "g", quoted=True) for name in self.payload_names if with_payload]
        return self._scoped(source, has_suppressions, payload).subquery(alias)

    def _scoped(self, source: exp.Table, has_suppressions: bool, payload: Sequence[exp.Expr]) -> exp.Select:
        return select(
            exp.column("row_key", "g"),
            exp.column("person", "g"),
            exp.alias_(self._identity(), "identity"),
            exp.alias_(self._payload_hash(), "payload_hash"),
            exp.column("sieve", "g"),
            exp.alias_(self._marks(), "field_marks"),
            exp.column("deferral", "g"),
            exp.alias_(self._verdict(), "verdict"),
            *payload,
        ).from_(self._given(source, has_suppressions).subquery("g"))

    def _given(self, source: exp.Table, has_suppressions: bool) -> exp.Select:
        """Everything that is asked of a row, each expression once."""
        query = (
            select(
                exp.alias_(self.row_key("a"), "row_key"),
                exp.alias_(self._person("a"), "person"),
                exp.alias_(self._refusal(has_suppressions), "refusal"),
                exp.alias_(self._nothing_given(), "nothing_given"),
                exp.alias_(self._is_beyond_calendar(), "is_beyond_calendar"),
                exp.alias_(self._deferral(), "deferral"),
                exp.alias_(self.sieve("a"), "sieve"),
                *self.payload("a"),
            )
            .from_(exp.alias_(source.copy(), "a", table=True))
            .join(
                DUPLICATES,
                join_type="left",
                on=exp.EQ(this=self.row_key("a"), expression=exp.column("row_key", DUPLICATES)),
            )
            .join(
                table(self.eligibility, "e"),
                join_type="left",
                on=exp.and_(self.same_person("e"), *self.rule("e")),
            )
        )
        return self.join_holdouts(query)

    def duplicates(self, source: exp.Table) -> exp.Select:
        """Keys that stand in more than one row: none of the copies is sent, since nobody knows which is right."""
        columns = [exp.column(name, "a") for name in self.audience.primary_key]
        repeated = (
            select(*columns)
            .from_(exp.alias_(source.copy(), "a", table=True))
            .group_by(*[column.copy() for column in columns])
            .having("count(*) > 1")
        )
        return select(exp.alias_(self.row_key("a"), "row_key")).distinct().from_(repeated.subquery("a"))

    def row_key(self, alias: str) -> exp.Expr:
        """The audience's primary key as one text; null as soon as one part is null."""
        parts = [text(column, alias) for column in self.audience.primary_key]
        return pipe(interleave(parts, literal(SEPARATOR)))

    @property
    def person_key(self) -> str:
        return self.project.settings.dbt.person_key

    def _person(self, alias: str) -> exp.Expr:
        return text(self.person_key, alias)

    def same_person(self, alias: str) -> exp.Expr:
        if self.person_type:
            return exp.EQ(
                this=exp.column(self.person_key, alias), expression=exp.column(self.person_key, "a")
            )
        return exp.EQ(this=self._person(alias), expression=self._person("a"))

    def rule(self, alias: str) -> list[exp.Expr]:
        return [
            exp.column("channel", alias).eq(self.sync.channel.value),
            exp.column("purpose", alias).eq(self.sync.purpose),
        ]

    def join_holdouts(self, query: exp.Select) -> exp.Select:
        if self.sync.holdout is None:
            return query
        on = exp.and_(self.same_person("h"), exp.column("holdout", "h").eq(self.sync.holdout))
        return query.join(table(self.holdouts, "h"), join_type="left", on=on)

    def _refusal(self, has_suppressions: bool) -> exp.Expr:
        """`kind` or `kind:reason` of the first rule that keeps the row out, whatever its identifiers are."""
        case = (
            exp.case()
            .when(self.row_key("a").is_(exp.null()), literal("invalid:null_key"))
            .when(
                exp.RegexpLike(this=self._printable_key(), expression=literal(_CONTROL)),
                literal("invalid:control_character_in_key"),
            )
        )
        if has_suppressions:
            case = case.when(self.is_suppressed("a"), literal("ineligible:suppressed"))
        nobody_spoke = exp.column(self.person_key, "e").is_(exp.null())
        case = case.when(nobody_spoke, literal("ineligible:unknown")).when(
            condition("not coalesce(e.is_eligible, false)"),
            condition("'ineligible:' || coalesce(e.first_blocker, 'unknown')"),
        )
        if self.sync.holdout is not None:
            case = case.when(condition("coalesce(h.is_held_out, true)"), literal("held_out"))
        return case.when(condition(f"{DUPLICATES}.row_key is not null"), literal(_DUPLICATE_KEY))

    def _verdict(self) -> exp.Expr:
        """`in_scope`, or why not; exactly one rule decides."""
        keys = [exp.column(f"i.{name}", "g", quoted=True) for name in self._key_names]
        missing = exp.and_(*(key.is_(exp.null()) for key in keys))
        return (
            exp.case()
            .when(condition("g.refusal is not null"), condition("g.refusal"))
            .when(exp.and_(missing, condition("g.nothing_given")), literal("invalid:missing_identifier"))
            .when(missing.copy(), literal("invalid:malformed_identifier"))
            .when(condition("g.is_beyond_calendar"), literal(_IMPOSSIBLE_DATE))
            .else_(literal("in_scope"))
        )

    @staticmethod
    def _deferral() -> exp.Expr:
        """Why a message would have to wait (quiet hours, frequency cap), or null."""
        return condition(
            "case when coalesce(e.is_deferred, false) then coalesce(e.first_blocker, 'deferred') end"
        )

    def _printable_key(self) -> exp.Expr:
        """The key's parts without our own separator, which is a control character itself."""
        return pipe(
            [exp.func("coalesce", text(column, "a"), literal("")) for column in self.audience.primary_key]
        )

    def is_suppressed(self, alias: str) -> exp.Expr:
        """Any identifier of the row, or the person's key, among the suppressions that came after the last build."""
        trimmed = [exp.func("trim", exp.column(column, alias)) for column in self.sync.identifiers.values()]
        # Most values are in lower case already, and a digest costs more than a comparison.
        lowered = [
            exp.case().when(
                exp.NEQ(this=exp.func("lower", value.copy()), expression=value.copy()),
                exp.func("lower", value.copy()),
            )
            for value in trimmed
        ]
        return exp.or_(*(self.has_suppressed(value) for value in [self._person(alias), *trimmed, *lowered]))

    def has_suppressed(self, value: exp.Expr) -> exp.Expr:
        known = select("digest").from_(SUPPRESSIONS).subquery()
        digest = self.suppression.sql(value, self.warehouse.sha256)
        return exp.func("coalesce", exp.In(this=digest, query=known), exp.false())

    def identifier(self, column: str, alias: str) -> exp.Expr:
        """The identifier as it may be sent: trimmed, and null when it has not the form its column promises."""
        value = exp.func("nullif", exp.func("trim", exp.column(column, alias)), literal(""))
        form = _FORMS.get(self.audience.columns[column].pii or "")
        if form is None:
            return value
        return exp.case().when(exp.RegexpLike(this=value, expression=literal(form)), value.copy())

    @property
    def _key_names(self) -> list[str]:
        keys = self.sync.capabilities.key_identifiers
        return [name for name in self.sync.identifiers if keys is None or name in keys]

    def _nothing_given(self) -> exp.Expr:
        return exp.and_(
            *(
                exp.func("nullif", exp.func("trim", exp.column(c, "a")), literal("")).is_(exp.null())
                for c in self.sync.key_columns
            )
        )

    def _identity(self) -> exp.Expr:
        """What the destination knows the row by, as a keyed fingerprint."""
        return self._fingerprint("identity", [self._folded(name) for name in self._key_names])

    def _folded(self, name: str) -> exp.Expr:
        """Mailboxes do not tell cases apart, so neither may the key: a corrected case is the same person."""
        value = exp.column(f"i.{name}", "g", quoted=True)
        is_email = self.audience.columns[self.sync.identifiers[name]].pii == "email"
        return exp.func("lower", value) if is_email else value

    def _payload_hash(self) -> exp.Expr:
        """Everything that would be sent, and how: a newly mapped field changes every row, so it is back-filled."""
        return self._fingerprint(mapping_signature(self.sync), self._marked_texts())

    def _marked_texts(self) -> list[exp.Expr]:
        """What a change of the payload shows in: identifiers beside the key, and the fields."""
        return [exp.cast(exp.column(name, "g", quoted=True), "text") for name in marked_columns(self.sync)]

    def _fingerprint(self, purpose: str, values: Sequence[exp.Expr]) -> exp.Expr:
        return self.warehouse.md5(canonical(literal(f"{self.fingerprint.key}{purpose}"), values))

    def _marks(self) -> exp.Expr:
        """One small number for the mapping and one for each value; only of what is compared again."""
        if self.sync.mode is SyncMode.APPEND:
            return exp.cast(exp.null(), "int[]")
        mapping = exp.Literal.number(mapping_mark(self.sync, self.warehouse.hashing))
        values = [
            self.warehouse.mark(exp.column(name, "g", quoted=True)) for name in marked_columns(self.sync)
        ]
        return exp.cast(exp.Array(expressions=[mapping, *values]), "int[]")

    @property
    def has_sieve(self) -> bool:
        """Where the warehouse hashes rows cheaply, and what was sent may have to be sent again."""
        is_state = self.sync.mode is not SyncMode.APPEND
        return is_state and self.person_type is not None and self.warehouse.row_hash("", []) is not None

    def sieve(self, alias: str) -> exp.Expr:
        """A hash of the row as it is read: while it stays, identity and payload stay. See `planning/sieve.py`."""
        columns = [exp.column(name, alias) for name in self.columns]
        found = self.warehouse.row_hash(self._rules_digest(), columns) if self.has_sieve else None
        return exp.cast(exp.null(), "bigint") if found is None else found

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column of the audience that a plan reads, once each."""
        return tuple(dict.fromkeys((*self.audience.primary_key, *self.sync.columns)))

    def _rules_digest(self) -> str:
        """Changes with everything that turns a row into identity and payload: mapping, key, types, these statements."""
        parts = [
            self._refusal(False),
            self._verdict(),
            self._identity(),
            self._payload_hash(),
            *self.payload("a"),
        ]
        written = [part.sql(dialect=self.warehouse.dialect) for part in parts]
        content = [self.warehouse.hashing, written, sorted(self.column_types.items())]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    # -- payload -----------------------------------------------------------------------------------------------

    @property
    def payload_names(self) -> list[str]:
        return [f"i.{name}" for name in self.sync.identifiers] + [f"f.{name}" for name in self.sync.fields]

    def payload(self, alias: str) -> list[exp.Expr]:
        values = [self.identifier(column, alias) for column in self.sync.identifiers.values()]
        values += [self._value(mapping.column, alias) for mapping in self.sync.fields.values()]
        return [exp.alias_(v, name, quoted=True) for v, name in zip(values, self.payload_names, strict=True)]

    def _value(self, column: str, alias: str) -> exp.Expr:
        """As the audience has it, except what a columnar file cannot hold exactly, and dates that there are not."""
        data_type, value = self.audience.columns[column].data_type.lower(), exp.column(column, alias)
        if data_type in ("hugeint", "uhugeint"):  # Parquet would make it a double
            return exp.cast(value, "decimal(38, 0)")
        if possible := self._in_calendar(column, alias):
            return exp.case().when(possible, value)
        return exp.cast(value, "text") if data_type == "uuid" else value

    def _in_calendar(self, column: str, alias: str) -> exp.Expr | None:
        return in_calendar(exp.column(column, alias), self.column_types.get(column, ""))

    def _is_beyond_calendar(self) -> exp.Expr:
        """Whether a field holds a date that nobody could read: nothing of such a row is sent."""
        fields = [self._in_calendar(mapping.column, "a") for mapping in self.sync.fields.values()]
        beyond = [exp.not_(possible) for possible in fields if possible]
        return exp.func("coalesce", exp.or_(*beyond), exp.false()) if beyond else exp.false()

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
        kept = f"k.row_key in (select row_key from {SCOPE} where verdict in ('{_DUPLICATE_KEY}', '{_IMPOSSIBLE_DATE}'))"
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
                when {kept} then 'unchanged'
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

    def audience_size(self) -> exp.Select:
        return select("count(*)").from_(self.source)

    def any_held(self) -> exp.Select:
        return select("1").from_(SNAPSHOT.copy()).where(exp.column("sync").eq(self.sync.name)).limit(1)

    def held_count(self) -> exp.Select:
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

    @staticmethod
    def closed_rejections() -> exp.Select:
        """Refused rows that nobody wants any more, or that are what the destination holds again."""
        wanted = select("row_key", "identity").from_(DIFFERENCE).where("verdict = 'waiting:rejected'")
        planned = (
            select("row_key", "identity")
            .from_(DIFFERENCE)
            .where("verdict in ('added', 'changed', 'removed')")
        )
        return (
            select("row_key", "identity")
            .from_(OPEN_ROWS)
            .where("state = 'rejected' and not maybe")
            .where(
                exp.Not(
                    this=exp.In(
                        this=exp.Tuple(expressions=[exp.column("row_key"), exp.column("identity")]),
                        query=exp.union(wanted, planned).subquery(),
                    )
                )
            )
        )


def mapping_signature(sync: Sync) -> str:
    """Changes when what is sent for an unchanged person would change."""
    mapping = {name: [m.column, m.on_null.value] for name, m in sync.fields.items()}
    content = [mapping, dict(sync.identifiers), dict(sync.target), sync.mode.value, sync.account.name]
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]
