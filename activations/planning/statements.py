"""What is asked of the audience, as expressions.

`scope` has one row per audience row: key, identity, payload hash, verdict (in_scope, or why not). Every column list is
written once. `source` is the audience, or those of its rows that the sieve leaves. What scope is compared with:
`comparison.py`.
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
"""Blockers whose removals nothing may hold back: the person asked for it."""

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
LONGEST_KEY = 500
"""Characters. A journal on Postgres can index 2,700 bytes, of which a character takes four at most."""
SUPPRESSED = "ineligible:suppressed"
DUPLICATE_KEY, IMPOSSIBLE_DATE = "invalid:duplicate_key", "invalid:impossible_date"
"""The row is at fault, not the person: whom the destination holds stays there as they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Statements:
    """The statements for one sync on one warehouse."""

    project: Project
    sync: Sync
    audience: Audience
    eligibility: Relation
    holdouts: Relation
    warehouse: Warehouse
    identities: Digester
    payloads: Digester
    suppressions: Digester
    pseudonyms: Digester
    has_suppressions: bool
    """Whether anybody is in SUPPRESSIONS. Looking for nobody in every row would cost as much as looking for many."""
    person_type: str | None = None
    """The type of the person's key where audience, eligibility and holdouts agree on one: they are joined without a
    cast. None: as text."""
    column_types: Mapping[str, str] = field(default_factory=dict)
    """The audience's columns as the warehouse has them."""

    @property
    def source(self) -> exp.Table:
        return exp.table_(self.audience.relation.name, db=self.audience.relation.schema, quoted=True)

    # -- scope -------------------------------------------------------------------------------------------------

    def scope(self, source: exp.Table) -> exp.Select:
        """One row per row of the source: row_key, person, identity, payload_hash, deferral, verdict, and what the
        snapshot remembers beside the hash."""
        return self._scoped(source, [])

    def scoped(self, source: exp.Table, alias: str, *, with_payload: bool = False) -> exp.Subquery:
        """The same to select from; with everything that is sent, for who needs each row only once."""
        payload = [exp.column(name, "g", quoted=True) for name in self.payload_names if with_payload]
        return self._scoped(source, payload).subquery(alias)

    def _scoped(self, source: exp.Table, payload: Sequence[exp.Expr]) -> exp.Select:
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
        ).from_(self._given(source).subquery("g"))

    def _given(self, source: exp.Table) -> exp.Select:
        """Everything that is asked of a row, each expression once."""
        query = (
            select(
                exp.alias_(self.row_key("a"), "row_key"),
                exp.alias_(self._person("a"), "person"),
                exp.alias_(self._refusal(with_suppressions=self.has_suppressions), "refusal"),
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

    def _refusal(self, *, with_suppressions: bool) -> exp.Expr:
        """`kind` or `kind:reason` of the first rule that keeps the row out, whatever its identifiers are."""
        case = (
            exp.case()
            .when(self.row_key("a").is_(exp.null()), literal("invalid:null_key"))
            .when(
                exp.RegexpLike(this=self._printable_key(), expression=literal(_CONTROL)),
                literal("invalid:control_character_in_key"),
            )
            .when(
                exp.GT(
                    this=exp.func("length", self.row_key("a")), expression=exp.Literal.number(LONGEST_KEY)
                ),
                literal("invalid:key_too_long"),
            )
        )
        if with_suppressions:
            case = case.when(self.is_suppressed("a"), literal(SUPPRESSED))
        nobody_spoke = exp.column(self.person_key, "e").is_(exp.null())
        case = case.when(nobody_spoke, literal("ineligible:unknown")).when(
            condition("not coalesce(e.is_eligible, false)"),
            condition("'ineligible:' || coalesce(e.first_blocker, 'unknown')"),
        )
        if self.sync.holdout is not None:
            case = case.when(condition("coalesce(h.is_held_out, true)"), literal("held_out"))
        return case.when(condition(f"{DUPLICATES}.row_key is not null"), literal(DUPLICATE_KEY))

    def _verdict(self) -> exp.Expr:
        """`in_scope`, or why not; exactly one rule decides."""
        keys = [exp.column(f"i.{name}", "g", quoted=True) for name in self._key_names]
        missing = exp.and_(*(key.is_(exp.null()) for key in keys))
        return (
            exp.case()
            .when(condition("g.refusal is not null"), condition("g.refusal"))
            .when(exp.and_(missing, condition("g.nothing_given")), literal("invalid:missing_identifier"))
            .when(missing.copy(), literal("invalid:malformed_identifier"))
            .when(condition("g.is_beyond_calendar"), literal(IMPOSSIBLE_DATE))
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
        digest = self.suppressions.sql(value, self.warehouse.sha256)
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
        return self._fingerprint(self.identities, [self._folded(name) for name in self._key_names])

    def _folded(self, name: str) -> exp.Expr:
        """Mailboxes do not tell cases apart, so neither may the key: a corrected case is the same person."""
        value = exp.column(f"i.{name}", "g", quoted=True)
        is_email = self.audience.columns[self.sync.identifiers[name]].pii == "email"
        return exp.func("lower", value) if is_email else value

    def _payload_hash(self) -> exp.Expr:
        """Everything that would be sent, and how: a newly mapped field changes every row, so it is back-filled."""
        return self._fingerprint(self.payloads, self._marked_texts())

    def _marked_texts(self) -> list[exp.Expr]:
        """What a change of the payload shows in: identifiers beside the key, and the fields."""
        return [exp.cast(exp.column(name, "g", quoted=True), "text") for name in marked_columns(self.sync)]

    def _fingerprint(self, use: Digester, values: Sequence[exp.Expr]) -> exp.Expr:
        return self.warehouse.md5(canonical(literal(use.key), values))

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
            self._refusal(with_suppressions=False),
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

    def audience_size(self) -> exp.Select:
        return select("count(*)").from_(self.source)


def mapping_signature(sync: Sync) -> str:
    """Changes when what is sent for an unchanged person would change."""
    mapping = {name: [m.column, m.on_null.value] for name, m in sync.fields.items()}
    content = [mapping, dict(sync.identifiers), dict(sync.target), sync.mode.value, sync.account.name]
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]
