"""The SQL of planning, as expressions.

Three temporary relations, each one SELECT:

    scope       one row per audience row: key, identity, payload hash, verdict (in_scope, or why not)
    known       one row per row the destination holds or may hold: snapshot overlaid by the journal's open rows
    difference  scope ⟗ known on (row_key, identity), without the unchanged rows

A changed identifier is therefore two rows, a removal of the old identity and an addition of the new one, without a
rule of its own. Every column list is written once; every comparison is null-safe because hashes of canonical text
are compared, and in canonical text a null is `~` and a value is `length:value`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import sqlglot.expressions as exp
from sqlglot import condition, select

from activations.config import Project, Sync
from activations.digests import SEPARATOR, Digester
from activations.manifest import Audience, Relation
from activations.model import SyncMode
from activations.warehouses import Warehouse

URGENT = ("erased", "suppressed", "objection", "consent")
"""First blockers whose removals nothing may hold back: the person asked for it."""

SCOPE, KNOWN, DIFFERENCE = "planned_scope", "planned_known", "planned_difference"
OPEN_ROWS, SUPPRESSIONS = "planned_open_rows", "planned_suppressions"

# Written out: [[:space:]] and [[:cntrl:]] are ASCII in one warehouse and Unicode in the next.
_SPACE = "\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_FORMS = {
    "email": f"^[^@{_SPACE}]+@[^@{_SPACE}]+[.][^@{_SPACE}]+$",
    "phone": r"^[+][1-9][0-9]{6,14}$",
}
_CONTROL = "[\x01-\x1f\x7f-\x9f]"


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

    # -- scope -------------------------------------------------------------------------------------------------

    def scope(self, *, has_suppressions: bool) -> exp.Select:
        """One row per audience row: row_key, person, identity, payload_hash, deferral, verdict."""
        query = (
            select(
                exp.alias_(self._row_key("a"), "row_key"),
                exp.alias_(self._person("a"), "person"),
                exp.alias_(self._identity(), "identity"),
                exp.alias_(self._payload_hash(), "payload_hash"),
                exp.alias_(self._deferral(), "deferral"),
                exp.alias_(self._verdict(has_suppressions), "verdict"),
            )
            .from_(_table(self.audience.relation, "a"))
            .join(
                self._duplicates(),
                join_type="left",
                on=exp.EQ(this=self._row_key("a"), expression=exp.column("row_key", "duplicates")),
            )
            .join(
                _table(self.eligibility, "e"),
                join_type="left",
                on=self._eligibility_on("e", self._person("a")),
            )
        )
        return self._join_holdouts(query)

    def _row_key(self, table: str) -> exp.Expr:
        """The audience's primary key as one text; null as soon as one part is null."""
        parts = [_text(column, table) for column in self.audience.primary_key]
        return _pipe(_interleave(parts, exp.Literal.string(SEPARATOR)))

    def _person(self, table: str) -> exp.Expr:
        return _text(self.project.settings.dbt.person_key, table)

    def _duplicates(self) -> exp.Subquery:
        """Keys that stand in more than one row: none of the copies is sent, since nobody knows which is right."""
        key = self._row_key("a")
        query = (
            select(exp.alias_(key, "row_key"))
            .from_(_table(self.audience.relation, "a"))
            .group_by(key)
            .having("count(*) > 1")
        )
        return query.subquery("duplicates")

    def _eligibility_on(self, table: str, person: exp.Expr) -> exp.Expr:
        return exp.and_(
            exp.EQ(this=_text(self.project.settings.dbt.person_key, table), expression=person),
            exp.column("channel", table).eq(self.sync.channel.value),
            exp.column("purpose", table).eq(self.sync.purpose),
        )

    def _join_holdouts(self, query: exp.Select) -> exp.Select:
        if self.sync.holdout is None:
            return query
        on = exp.and_(
            exp.EQ(this=_text(self.project.settings.dbt.person_key, "h"), expression=self._person("a")),
            exp.column("holdout", "h").eq(self.sync.holdout),
        )
        return query.join(_table(self.holdouts, "h"), join_type="left", on=on)

    def _verdict(self, has_suppressions: bool) -> exp.Expr:
        """`kind` or `kind:reason`; the first rule that speaks decides, and exactly one does."""
        key = self._row_key("a")
        case = (
            exp.case()
            .when(key.is_(exp.null()), _literal("invalid:null_key"))
            .when(
                exp.RegexpLike(this=self._printable_key(), expression=_literal(_CONTROL)),
                _literal("invalid:control_character_in_key"),
            )
        )
        if has_suppressions:
            case = case.when(self._is_suppressed(), _literal("ineligible:suppressed"))
        case = case.when(condition("e.channel is null"), _literal("ineligible:unknown")).when(
            condition("not coalesce(e.is_eligible, false)"),
            condition("'ineligible:' || coalesce(e.first_blocker, 'unknown')"),
        )
        if self.sync.holdout is not None:
            case = case.when(condition("coalesce(h.is_held_out, true)"), _literal("held_out"))
        case = case.when(condition("duplicates.row_key is not null"), _literal("invalid:duplicate_key")).when(
            self._identity_missing(), self._identity_problem()
        )
        return case.else_(_literal("in_scope"))

    @staticmethod
    def _deferral() -> exp.Expr:
        """Why a message would have to wait (quiet hours, frequency cap), or null."""
        return condition(
            "case when coalesce(e.is_deferred, false) then coalesce(e.first_blocker, 'deferred') end"
        )

    def _printable_key(self) -> exp.Expr:
        """The key's parts without our own separator, which is a control character itself."""
        return _pipe(
            [exp.func("coalesce", _text(column, "a"), _literal("")) for column in self.audience.primary_key]
        )

    def _is_suppressed(self) -> exp.Expr:
        """Any identifier of the row, or the person's key, among the suppressions that came after the last build."""
        trimmed = [exp.func("trim", exp.column(column, "a")) for column in self.sync.identifiers.values()]
        lowered = [exp.func("lower", value.copy()) for value in trimmed]
        return exp.or_(*(self._has_suppressed(value) for value in [self._person("a"), *trimmed, *lowered]))

    def _has_suppressed(self, value: exp.Expr) -> exp.Expr:
        known = select("digest").from_(SUPPRESSIONS).subquery()
        digest = self.suppression.sql(value, self.warehouse.sha256)
        return exp.func("coalesce", exp.In(this=digest, query=known), exp.false())

    def identifier(self, column: str, table: str = "a") -> exp.Expr:
        """The identifier as it may be sent: trimmed, and null when it has not the form its column promises."""
        value = exp.func("nullif", exp.func("trim", exp.column(column, table)), _literal(""))
        form = _FORMS.get(self.audience.columns[column].pii or "")
        if form is None:
            return value
        return exp.case().when(exp.RegexpLike(this=value, expression=_literal(form)), value.copy())

    def _identity_missing(self) -> exp.Expr:
        return exp.and_(*(self.identifier(c).is_(exp.null()) for c in self.sync.key_columns))

    def _identity_problem(self) -> exp.Expr:
        nothing_given = exp.and_(
            *(
                exp.func("nullif", exp.func("trim", exp.column(c, "a")), _literal("")).is_(exp.null())
                for c in self.sync.key_columns
            )
        )
        return (
            exp.case()
            .when(nothing_given, _literal("invalid:missing_identifier"))
            .else_(_literal("invalid:malformed_identifier"))
        )

    def _identity(self) -> exp.Expr:
        """What the destination knows the row by, as a keyed fingerprint."""
        return self._fingerprint("identity", [self._folded(c) for c in self.sync.key_columns])

    def _folded(self, column: str) -> exp.Expr:
        """Mailboxes do not tell cases apart, so neither may the key: a corrected case is the same person."""
        value = self.identifier(column)
        return exp.func("lower", value) if self.audience.columns[column].pii == "email" else value

    def _payload_hash(self) -> exp.Expr:
        """Everything that would be sent, and how: a newly mapped field changes every row, so it is back-filled."""
        in_place = [
            self.identifier(c) for c in self.sync.identifiers.values() if c not in self.sync.key_columns
        ]
        fields = [_text(mapping.column, "a") for mapping in self.sync.fields.values()]
        return self._fingerprint(mapping_signature(self.sync), in_place + fields)

    def _fingerprint(self, purpose: str, values: Sequence[exp.Expr]) -> exp.Expr:
        parts: list[exp.Expr] = [_literal(f"{self.fingerprint.key}{purpose}")]
        return self.warehouse.md5(_pipe(parts + [_canonical(value) for value in values]))

    # -- known -------------------------------------------------------------------------------------------------

    def known(self) -> exp.Select:
        """What the destination holds by its own word, overlaid by what the journal has not settled."""
        snapshot = (
            select("primary_key", "identity", "payload_hash", "destination_key")
            .from_("activation.sync_snapshot")
            .where(exp.column("sync").eq(self.sync.name))
            .subquery("s")
        )
        return (
            select(
                "coalesce(s.primary_key, o.row_key) as row_key",
                "coalesce(s.identity, o.identity) as identity",
                "s.payload_hash",
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
                "k.destination_key",
                "k.sealed",
                exp.alias_(verdict, "verdict"),
            )
            .from_(desired)
            .join(f"{KNOWN} as k", join_type="full", on=on)
        )
        return select("*").from_(compared.subquery("compared")).where("verdict <> 'unchanged'")

    def _state_verdict(self) -> exp.Expr:
        kept = "k.row_key in (select row_key from planned_scope where verdict = 'invalid:duplicate_key')"
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

    def without_shared_identities(self) -> exp.Select:
        """One identity belongs to one row: the one that holds it already, else the smallest key. The others are
        invalid, and when the holder leaves, its successor is added by the run after that removal was acknowledged."""
        holders = (
            select("identity", "min(row_key) as row_key")
            .from_(KNOWN)
            .where("may_hold", *self._only_members())
            .group_by("identity")
            .subquery("holders")
        )
        ranked = (
            select("*", "row_number() over (partition by verdict, identity order by row_key) as rank")
            .from_(DIFFERENCE)
            .subquery("ranked")
        )
        verdict = """case when ranked.verdict = 'added' and (rank > 1 or coalesce(holders.row_key <> ranked.row_key, false))
                     then 'invalid:shared_identifier' else ranked.verdict end as verdict"""
        plain = ("row_key", "identity", "payload_hash", "destination_key", "sealed")
        return (
            select(*(f"ranked.{name}" for name in plain), verdict)
            .from_(ranked)
            .join(
                holders,
                join_type="left",
                on="holders.identity = ranked.identity and ranked.verdict = 'added'",
            )
        )

    def _only_members(self) -> list[str]:
        """Nobody is removed by an upsert, so there only a row that is still in scope keeps an identity."""
        members = f"row_key in (select row_key from {SCOPE} where verdict = 'in_scope')"
        return [members] if self.sync.mode is SyncMode.UPSERT else []

    # -- rows --------------------------------------------------------------------------------------------------

    def rows(self) -> exp.Select:
        """The plan's rows in the order in which they are sent: removals first, and first those nobody may hold."""
        reason = condition(
            "case when coalesce(e.is_eligible, true) then 'left_audience' else coalesce(e.first_blocker, 'unknown') end"
        )
        suppressed = exp.or_(
            condition(
                f"exists (select 1 from {SCOPE} as x where x.row_key = p.row_key and x.verdict = 'ineligible:suppressed')"
            ),
            self._has_suppressed(exp.column("row_key", "p")),  # also of who left the audience
        )
        cause = (
            exp.case()
            .when(condition("p.verdict <> 'removed'"), exp.null())
            .when(suppressed, _literal("suppressed"))
            .else_(reason)
        )
        inner = (
            select("p.*", exp.alias_(cause, "cause"), *self._payload())
            .from_(exp.alias_(exp.to_table(DIFFERENCE), "p", table=True))
            .join(
                _table(self.audience.relation, "a"),
                join_type="left",
                on=exp.and_(
                    condition("p.verdict <> 'removed'"),
                    exp.EQ(this=self._row_key("a"), expression=exp.column("row_key", "p")),
                ),
            )
            .join(
                _table(self.eligibility, "e"),
                join_type="left",
                on=exp.and_(
                    condition("p.verdict = 'removed'"), self._eligibility_on("e", exp.column("row_key", "p"))
                ),
            )
            .where("p.verdict in ('added', 'changed', 'removed')")
        )
        urgent = exp.In(this=exp.column("cause"), expressions=[_literal(reason) for reason in URGENT])
        return (
            select("*", exp.alias_(exp.func("coalesce", urgent, exp.false()), "is_urgent"))
            .from_(inner.subquery("planned"))
            .order_by("is_urgent desc", "verdict = 'removed' desc", "row_key", "identity")
        )

    def _payload(self) -> list[exp.Expr]:
        identifiers = [
            exp.alias_(self.identifier(column), f"i.{name}", quoted=True)
            for name, column in self.sync.identifiers.items()
        ]
        fields = [
            exp.alias_(self._value(mapping.column), f"f.{name}", quoted=True)
            for name, mapping in self.sync.fields.items()
        ]
        return identifiers + fields

    def _value(self, column: str) -> exp.Expr:
        """As the audience has it, except what a columnar file cannot hold exactly."""
        data_type = self.audience.columns[column].data_type.lower()
        if data_type in ("hugeint", "uhugeint"):  # Parquet would make it a double
            return exp.cast(exp.column(column, "a"), "decimal(38, 0)")
        return exp.cast(exp.column(column, "a"), "text") if data_type == "uuid" else exp.column(column, "a")

    # -- counts ------------------------------------------------------------------------------------------------

    @staticmethod
    def scope_counts() -> exp.Select:
        return select("verdict", "count(*)").from_(SCOPE).group_by("verdict")

    @staticmethod
    def difference_counts() -> exp.Select:
        return select("verdict", "count(*)").from_(DIFFERENCE).group_by("verdict")

    def held_count(self) -> exp.Select:
        """How many rows the destination holds or may hold."""
        return select("count(*)").from_(KNOWN).where("may_hold")

    @staticmethod
    def first_assertions() -> exp.Select:
        """Additions and changes by verdict, without rows in doubt that are only asserted again: those passed the
        guards when they were first planned, and have to settle without anybody's help."""
        return (
            select("d.verdict", "count(*)")
            .from_(f"{DIFFERENCE} as d")
            .join(f"{KNOWN} as k", join_type="left", on="k.row_key = d.row_key and k.identity = d.identity")
            .where("d.verdict in ('added', 'changed') and not coalesce(k.is_due, false)")
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

    def rules_count(self) -> exp.Select:
        """Whether anybody wrote a rule for this channel and purpose; none means nobody may be reached."""
        person = exp.column(self.project.settings.dbt.person_key, "e")
        return (
            select("count(*)", exp.Count(this=exp.Distinct(expressions=[person])))
            .from_(_table(self.eligibility, "e"))
            .where(
                exp.and_(
                    exp.column("channel", "e").eq(self.sync.channel.value),
                    exp.column("purpose", "e").eq(self.sync.purpose),
                )
            )
        )

    def eligibility_of(self, person: str) -> exp.Select:
        """blockers, is_deferred, consent_event_id, evaluated_at of one person for this channel and purpose."""
        return (
            select("e.blockers", "e.is_deferred", "e.consent_event_id", "e.evaluated_at")
            .from_(_table(self.eligibility, "e"))
            .where(self._eligibility_on("e", _literal(person)))
        )

    def holdout_count(self) -> exp.Select:
        person = exp.column(self.project.settings.dbt.person_key, "h")
        return (
            select("count(*)", exp.Count(this=exp.Distinct(expressions=[person])))
            .from_(_table(self.holdouts, "h"))
            .where(exp.column("holdout", "h").eq(self.sync.holdout))
        )


def mapping_signature(sync: Sync) -> str:
    """Changes when what is sent for an unchanged person would change."""
    mapping = {name: [m.column, m.on_null.value] for name, m in sync.fields.items()}
    content = [mapping, dict(sync.identifiers), dict(sync.target), sync.mode.value, sync.account.name]
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _table(relation: Relation, alias: str) -> exp.Expr:
    table = exp.table_(relation.name, db=relation.schema, quoted=True)
    return exp.alias_(table, alias, table=True)


def _text(column: str, table: str) -> exp.Expr:
    return exp.cast(exp.column(column, table), "text")


def _literal(text: str) -> exp.Literal:
    return exp.Literal.string(text)


def _interleave(parts: Sequence[exp.Expr], separator: exp.Expr) -> list[exp.Expr]:
    return [piece for part in parts for piece in (separator.copy(), part)][1:]


def _pipe(parts: Iterable[exp.Expr]) -> exp.Expr:
    result, *rest = parts
    for part in rest:
        result = exp.DPipe(this=result, expression=part, safe=True)
    return result


def _canonical(value: exp.Expr) -> exp.Expr:
    length = exp.cast(exp.func("length", value), "text")
    return exp.func("coalesce", _pipe([length, _literal(":"), value.copy()]), _literal("~"))
