"""From an audience to a frozen plan."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import sqlglot.expressions as exp

from activations.config import Project, Sync
from activations.digests import Digester
from activations.errors import PlanRejected
from activations.guards import Shape, checks, held_because
from activations.manifest import Audience, Manifest, check_sync
from activations.model import Counts, GuardCheck, Operation, Plan, SyncMode
from activations.planning.comparison import Comparison
from activations.planning.freezing import Frozen, freeze
from activations.planning.gate import check_relations, check_rules, check_spoken
from activations.planning.inputs import Expectation, Finding, expected, read_audience, read_surroundings
from activations.planning.refreshing import refresh
from activations.planning.rows import SHARED, SUSPECTS, Rows
from activations.planning.sieve import HELD, SOURCE, Sieve, is_worthwhile, sift
from activations.planning.statements import (
    DIFFERENCE,
    DUPLICATES,
    KNOWN,
    OPEN_ROWS,
    SCOPE,
    SNAPSHOT,
    SUPPRESSIONS,
    Statements,
    mapping_signature,
)
from activations.warehouses import Session, Warehouse

STREAM_ROWS = 4096

OPEN_ROW_COLUMNS: Mapping[str, Any] = {
    "row_key": pl.String,
    "identity": pl.String,
    "state": pl.String,
    "payload_hash": pl.String,
    "destination_key": pl.String,
    "sealed": pl.Binary,
    "maybe": pl.Boolean,
    "is_due": pl.Boolean,
}
"""Columns of `PlanInput.open_rows`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanInput:
    """What planning takes from outside the warehouse: the journal's word, and the moment."""

    open_rows: pa.Table
    """Columns OPEN_ROW_COLUMNS: rows in doubt, settling or rejected."""
    suppressions: Sequence[str]
    """Digests of everybody who said no since the warehouse was built, for this channel."""
    ledger_position: str
    approved_hash: str | None
    installation_key: bytes
    now: datetime
    path: Path
    """Where the plan file goes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FrozenPlan:
    """A plan with its file. `plan` is what people and programs see."""

    plan: Plan
    frozen: Frozen
    closed_rejections: Sequence[tuple[str, str]]
    """Row key and identity of refused rows that are no longer worth remembering."""
    suppressions: frozenset[str]
    """Every row was compared with these."""
    afterwards: Expectation | None = None
    """What the next plan finds, if this one is delivered whole."""

    @property
    def sendable_rows(self) -> int:
        """All rows; of a held plan only the removals that nothing may hold back."""
        return self.frozen.urgent if self.plan.held_reason else self.frozen.rows


def make_plan(
    project: Project, sync: Sync, manifest: Manifest, warehouse: Warehouse, session: Session, given: PlanInput
) -> FrozenPlan:
    """Compare, count, guard and freeze. Writes temporary tables and one file, nothing else."""
    audience = manifest.audience(sync.audience, sync.file)
    check_sync(sync, audience, project.settings.dbt.person_key)
    statements = statements_for(project, sync, audience, manifest, warehouse, given)
    check_relations(session, statements)
    session.hold(audience.relation, statements.eligibility, statements.holdouts)
    statements = _with_types(session, statements)
    check_spoken(session, statements)
    found = _compared(session, statements, given)
    counts = _counts(found)
    guards = checks(sync.guard, _shape(sync, counts, found))
    return FrozenPlan(
        plan=_plan(project, sync, given, counts, found.frozen, guards),
        frozen=found.frozen,
        closed_rejections=found.closed_rejections,
        suppressions=frozenset(given.suppressions),
        afterwards=found.afterwards,
    )


def statements_for(
    project: Project,
    sync: Sync,
    audience: Audience,
    manifest: Manifest,
    warehouse: Warehouse,
    given: PlanInput,
) -> Statements:
    """The statements for this sync, with the digests of this installation."""
    return Statements(
        project=project,
        sync=sync,
        audience=audience,
        eligibility=manifest.relation(project.settings.dbt.eligibility),
        holdouts=manifest.relation(project.settings.dbt.holdouts),
        warehouse=warehouse,
        fingerprint=Digester.for_use(given.installation_key, "fingerprint"),
        suppression=Digester.for_use(given.installation_key, "suppression"),
        pseudonym=Digester.for_use(given.installation_key, "pseudonym"),
    )


_NATIVE = {
    "varchar", "text", "character varying", "uuid",
    "tinyint", "smallint", "integer", "bigint", "hugeint", "utinyint", "usmallint", "uinteger", "ubigint",
}  # fmt: skip
"""Types whose values are equal exactly when their texts are."""


def _with_types(session: Session, statements: Statements) -> Statements:
    person = statements.person_key
    columns = session.columns(statements.audience.relation)
    relations = [statements.eligibility, *([statements.holdouts] if statements.sync.holdout else [])]
    types = {columns[person], *(session.columns(relation).get(person, "") for relation in relations)}
    agreed = types.pop() if len(types) == 1 else ""
    return replace(
        statements,
        person_type=agreed if agreed.lower() in _NATIVE else None,
        column_types={name: columns[name] for name in statements.columns},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Compared:
    """What a comparison found. `scope` and `difference` count verdicts."""

    scope: Mapping[str, int]
    difference: Mapping[str, int]
    asserted_again: Mapping[str, int]
    held: int
    frozen: Frozen
    closed_rejections: Sequence[tuple[str, str]]
    audience: str | None = None
    """Its content, where it was found on the way. See `planning/inputs.py`."""
    afterwards: Expectation | None = None


def _compared(session: Session, statements: Statements, given: PlanInput) -> _Compared:
    _load(session, given)
    if not is_worthwhile(session, statements):
        return _looked_at(session, statements, given, is_large=False)
    last = expected(session, statements, given.ledger_position)
    surroundings = read_surroundings(session, statements, list(OPEN_ROW_COLUMNS))
    if last and last.surroundings == surroundings and last.audience == read_audience(session, statements):
        return _as_expected(session, statements, given, last.finding)
    found = _looked_at(session, statements, given, is_large=True)
    finding = _next_finding(given, found)
    if not finding:
        return found
    audience = found.audience or read_audience(session, statements)
    return replace(
        found, afterwards=Expectation(audience=audience, surroundings=surroundings, finding=finding)
    )


def _as_expected(session: Session, statements: Statements, given: PlanInput, finding: Finding) -> _Compared:
    """Nothing to send, as was foreseen."""
    reader = session.stream(Rows(statements).none(), STREAM_ROWS)
    return _Compared(
        scope=finding.scope,
        difference=finding.difference,
        asserted_again={},
        held=finding.held,
        frozen=freeze([reader], given.path),
        closed_rejections=[],
    )


def _next_finding(given: PlanInput, found: _Compared) -> Finding | None:
    """What the next plan finds of the same inputs once this one is delivered whole, where that is known."""
    planned = {operation.value: found.difference.get(operation, 0) for operation in Operation}
    left = {verdict: n for verdict, n in found.difference.items() if verdict not in planned}
    if any(planned.values()) and (left or given.open_rows.num_rows):
        return None
    if found.closed_rejections:
        return None
    held = found.held + planned[Operation.ADDED] - planned[Operation.REMOVED]
    return Finding(scope=found.scope, difference=left, held=held)


def _looked_at(session: Session, statements: Statements, given: PlanInput, *, is_large: bool) -> _Compared:
    if not given.open_rows.num_rows and not session.rows(Comparison(statements.sync).any_held()):
        return _compared_first(session, statements, given)
    return _compared_with_held(session, statements, given, is_large=is_large)


def _load(session: Session, given: PlanInput) -> None:
    session.load(OPEN_ROWS, given.open_rows)
    session.load(
        SUPPRESSIONS, pl.DataFrame({"digest": given.suppressions}, schema={"digest": pl.String}).to_arrow()
    )


def _compared_first(session: Session, statements: Statements, given: PlanInput) -> _Compared:
    """Nothing is held, nothing is open: everybody in scope is added, and one pass over the audience finds them."""
    has_suppressions = bool(given.suppressions)
    rows = Rows(statements)
    session.keep(DUPLICATES, statements.duplicates(statements.source))
    if statements.sync.mode is SyncMode.APPEND:
        session.keep(SHARED, rows.nobody())
    else:
        session.keep(SUSPECTS, rows.suspects())
        session.keep(SHARED, rows.shared(has_suppressions=has_suppressions))
    reader = session.stream(rows.first(has_suppressions=has_suppressions), STREAM_ROWS)
    frozen = freeze([reader], given.path)
    if [(frozen.verdicts.total(),)] != session.rows(statements.audience_size()):
        check_rules(session, statements)  # somebody was joined to two rules
    scope, difference = _first_verdicts(frozen.verdicts)
    return _Compared(
        scope=scope, difference=difference, asserted_again={}, held=0, frozen=frozen, closed_rejections=[]
    )


def _first_verdicts(found: Mapping[str, int]) -> tuple[dict[str, int], dict[str, int]]:
    """Who is out by the rules, and what becomes of those in scope."""
    difference = {v: n for v, n in found.items() if v in ("added", _SHARED) or v.startswith("waiting:")}
    scope = {v: n for v, n in found.items() if v not in difference}
    return scope | {"in_scope": sum(difference.values())}, difference


_SHARED = "invalid:shared_identifier"


def _compared_with_held(
    session: Session, statements: Statements, given: PlanInput, *, is_large: bool
) -> _Compared:
    has_suppressions, has_open_rows = bool(given.suppressions), bool(given.open_rows.num_rows)
    sifted = sift(session, statements, has_suppressions=has_suppressions) if is_large else None
    people = Sieve(statements).people() if sifted and sifted.rules_are_single else None
    check_rules(session, statements, people)
    source = exp.to_table(SOURCE) if sifted else statements.source
    held = exp.to_table(HELD) if sifted else SNAPSHOT
    settled = sifted.settled if sifted else 0
    _difference(session, statements, source, held, has_suppressions=has_suppressions, is_sieved=bool(sifted))
    scope = dict(session.rows(Comparison.scope_counts()))
    difference = dict(session.rows(Comparison.difference_counts()))
    again = dict(session.rows(Comparison.asserted_again())) if has_open_rows else {}
    closed = session.rows(Comparison.closed_rejections()) if has_open_rows else []
    holds = session.rows(Comparison.held_count())[0][0]
    if is_large:
        refresh(session, statements, given.path)
    return _Compared(
        scope=scope | {"in_scope": scope.get("in_scope", 0) + settled},
        difference=difference,
        asserted_again=again,
        held=holds + settled,
        frozen=freeze(_streams(session, statements, source, has_suppressions, difference), given.path),
        closed_rejections=[(row[0], row[1]) for row in closed],
        audience=sifted.audience if sifted else None,
    )


def compare(session: Session, statements: Statements, given: PlanInput) -> None:
    """Make the temporary relations SCOPE, KNOWN and DIFFERENCE, of the whole audience."""
    _load(session, given)
    _difference(
        session,
        statements,
        statements.source,
        SNAPSHOT,
        has_suppressions=bool(given.suppressions),
        is_sieved=False,
    )


def _difference(
    session: Session,
    statements: Statements,
    source: exp.Table,
    held: exp.Table,
    *,
    has_suppressions: bool,
    is_sieved: bool,
) -> None:
    session.keep(DUPLICATES, statements.duplicates(source))
    session.keep(SCOPE, statements.scope(source, has_suppressions=has_suppressions))
    comparison = Comparison(statements.sync)
    session.keep(KNOWN, comparison.known(held))
    session.keep(DIFFERENCE, comparison.difference())
    if statements.sync.mode is not SyncMode.APPEND:
        session.keep(f"{DIFFERENCE}_unshared", comparison.without_shared_identities(is_sieved=is_sieved))
        session.run(f"drop table {DIFFERENCE}")
        session.run(f"alter table {DIFFERENCE}_unshared rename to {DIFFERENCE}")


def _streams(
    session: Session,
    statements: Statements,
    source: exp.Table,
    has_suppressions: bool,
    difference: Mapping[str, int],
) -> Iterator[pa.RecordBatchReader]:
    """Removals, then the rest: one after the other, since a session reads one stream at a time."""
    rows = Rows(statements)
    if difference.get("removed"):
        yield session.stream(rows.removals(has_suppressions=has_suppressions), STREAM_ROWS)
    yield session.stream(rows.assertions(source), STREAM_ROWS)


def _counts(found: _Compared) -> Counts:
    scope, difference = found.scope, found.difference
    waiting = _by_reason("waiting", difference)
    shared = _by_reason("invalid", difference)
    in_scope = scope.get("in_scope", 0) - sum(shared.values())
    added, changed = difference.get("added", 0), difference.get("changed", 0)
    counts = Counts(
        audience_size=sum(scope.values()),
        ineligible=sum(_by_reason("ineligible", scope).values()),
        held_out=scope.get("held_out", 0),
        invalid=sum(_by_reason("invalid", scope).values()) + sum(shared.values()),
        added=added,
        changed=changed,
        removed=difference.get("removed", 0),
        unchanged=in_scope - added - changed - sum(waiting.values()),
        waiting=sum(waiting.values()),
        ineligible_by_reason=_by_reason("ineligible", scope),
        invalid_by_reason=_by_reason("invalid", scope, difference),
        waiting_by_reason=waiting,
    )
    if not counts.adds_up or counts.unchanged < 0 or counts.planned != found.frozen.rows:
        raise PlanRejected(
            "the counts of the plan do not add up to the audience: this is a defect of the planner, nothing was sent"
        )
    return counts


def _by_reason(kind: str, *verdicts: Mapping[str, int]) -> dict[str, int]:
    """`kind:reason` → {reason: count}, largest first."""
    found: dict[str, int] = {}
    for verdict in verdicts:
        for name, count in verdict.items():
            if name.startswith(f"{kind}:"):
                reason = name.partition(":")[2]
                found[reason] = found.get(reason, 0) + count
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def _shape(sync: Sync, counts: Counts, found: _Compared) -> Shape:
    return Shape(
        audience_size=counts.audience_size,
        held=found.held,
        added=counts.added - found.asserted_again.get("added", 0),
        changed=counts.changed - found.asserted_again.get("changed", 0),
        removed=counts.removed - found.frozen.urgent,
        is_append=sync.mode is SyncMode.APPEND,
    )


def _plan(
    project: Project,
    sync: Sync,
    given: PlanInput,
    counts: Counts,
    frozen: Frozen,
    guards: Sequence[GuardCheck],
) -> Plan:
    facts = (sync.account.name, mapping_signature(sync), given.ledger_position, frozen.content_hash)
    return Plan(
        plan_id=hashlib.sha256("\x1f".join((sync.name, *facts)).encode()).hexdigest()[:16],
        sync=sync.name,
        destination=sync.account.name,
        mapping=mapping_signature(sync),
        ledger_position=given.ledger_position,
        content_hash=frozen.content_hash,
        counts=counts,
        rows=frozen.rows,
        removals=frozen.removals,
        guards=guards,
        held_reason=held_because(guards, approved=given.approved_hash == frozen.content_hash),
        created_at=given.now,
        expires_at=given.now + timedelta(minutes=project.settings.plan.expires_minutes),
    )
