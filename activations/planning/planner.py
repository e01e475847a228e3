"""From an audience to a frozen plan."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from activations.config import Project, Sync
from activations.digests import Digester
from activations.errors import PlanRejected, RelationMissing
from activations.guards import Held, Shape, held_because
from activations.manifest import Audience, Manifest, check_sync
from activations.model import Counts, Plan, SyncMode
from activations.planning.freezing import Frozen, freeze
from activations.planning.statements import (
    DIFFERENCE,
    KNOWN,
    OPEN_ROWS,
    SCOPE,
    SUPPRESSIONS,
    Statements,
    mapping_signature,
)
from activations.warehouses import Session, Warehouse

STREAM_ROWS = 20_000

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
    content_hash: str
    closed_rejections: Sequence[tuple[str, str]]
    """Row key and identity of refused rows that are no longer worth remembering."""

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
    _check_relations(session, statements)
    session.hold(audience.relation, statements.eligibility, statements.holdouts)
    compare(session, statements, given)
    counts = _counts(session)
    frozen = _freeze(session, statements, given)
    held = held_because(
        sync.guard,
        _shape(session, statements, counts, frozen),
        approved=given.approved_hash == frozen.content_hash,
    )
    closed = [(row[0], row[1]) for row in session.rows(Statements.closed_rejections())]
    return _frozen_plan(project, sync, given, counts, frozen, held, closed)


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
    )


def _check_relations(session: Session, statements: Statements) -> None:
    """What dbt promised must be there: a plan that cannot see is an error, never "no change"."""
    audience = statements.audience
    columns = session.columns(audience.relation)
    if not columns:
        raise RelationMissing(
            f"{audience.relation} has not been built. Run `dbt build --select +{audience.name}`"
        )
    missing = [name for name in (*audience.primary_key, *statements.sync.columns) if name not in columns]
    if missing:
        raise RelationMissing(
            f"{audience.relation} has no column {', '.join(missing)}, though the manifest says so. Run `dbt build --select {audience.name}`"
        )
    _check_gate(session, statements)


_GATE_COLUMNS = (
    "channel",
    "purpose",
    "is_eligible",
    "is_deferred",
    "first_blocker",
    "blockers",
    "consent_event_id",
    "evaluated_at",
)


def _check_gate(session: Session, statements: Statements) -> None:
    """Eligibility and holdouts have to speak about every person once: twice would be a yes and a no at a time."""
    person = statements.project.settings.dbt.person_key
    missing = {person, *_GATE_COLUMNS} - set(session.columns(statements.eligibility))
    if missing:
        raise RelationMissing(
            f"{statements.eligibility} has no column {', '.join(sorted(missing))}. Run `dbt build --select {statements.eligibility.name}`"
        )
    [(rules, people)] = session.rows(statements.rules_count())
    if rules != people:
        raise PlanRejected(
            f"{statements.eligibility} says {rules} things about {people} people for {statements.sync.channel} × {statements.sync.purpose}: there may be one row per person. Correct the model"
        )
    if not rules:
        raise PlanRejected(
            f"no eligibility rule speaks about {statements.sync.channel} × {statements.sync.purpose}, so nobody may be reached. Add it to dbt/models/eligibility, or correct channel and purpose in {statements.sync.file.name}"
        )
    if statements.sync.holdout:
        _check_holdout(session, statements)


def _check_holdout(session: Session, statements: Statements) -> None:
    [(rows, people)] = session.rows(statements.holdout_count())
    if rows != people:
        raise PlanRejected(
            f"{statements.holdouts} assigns somebody twice to `{statements.sync.holdout}`. Correct the model"
        )
    if not rows:
        raise PlanRejected(
            f"there is no holdout `{statements.sync.holdout}` in {statements.holdouts}. Define it in dbt, or correct `holdout:` in {statements.sync.file.name}"
        )


def compare(session: Session, statements: Statements, given: PlanInput) -> None:
    """Make the temporary relations SCOPE, KNOWN and DIFFERENCE."""
    session.load(OPEN_ROWS, given.open_rows)
    session.load(
        SUPPRESSIONS, pl.DataFrame({"digest": given.suppressions}, schema={"digest": pl.String}).to_arrow()
    )
    session.keep(SCOPE, statements.scope(has_suppressions=bool(given.suppressions)))
    session.keep(KNOWN, statements.known())
    session.keep(DIFFERENCE, statements.difference())
    if statements.sync.mode is not SyncMode.APPEND:
        session.keep(f"{DIFFERENCE}_unshared", statements.without_shared_identities())
        session.run(f"drop table {DIFFERENCE}")
        session.run(f"alter table {DIFFERENCE}_unshared rename to {DIFFERENCE}")


def _counts(session: Session) -> Counts:
    scope = dict(session.rows(Statements.scope_counts()))
    difference = dict(session.rows(Statements.difference_counts()))
    waiting = _by_reason("waiting", scope, difference)
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
        unchanged=in_scope - added - changed - sum(_by_reason("waiting", difference).values()),
        waiting=sum(waiting.values()),
        ineligible_by_reason=_by_reason("ineligible", scope),
        invalid_by_reason=_by_reason("invalid", scope, difference),
        waiting_by_reason=waiting,
    )
    if not counts.adds_up or counts.unchanged < 0:
        raise PlanRejected(
            "the counts of the plan do not add up to the audience: this is a defect of the planner, nothing was sent"
        )
    return counts


def _by_reason(kind: str, *verdicts: dict[str, int]) -> dict[str, int]:
    """`kind:reason` → {reason: count}, largest first."""
    found: dict[str, int] = {}
    for verdict in verdicts:
        for name, count in verdict.items():
            if name.startswith(f"{kind}:"):
                reason = name.partition(":")[2]
                found[reason] = found.get(reason, 0) + count
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def _freeze(session: Session, statements: Statements, given: PlanInput) -> Frozen:
    reader = session.stream(statements.rows(), STREAM_ROWS)
    return freeze(iter(reader), reader.schema, given.path)


def _shape(session: Session, statements: Statements, counts: Counts, frozen: Frozen) -> Shape:
    held = session.rows(statements.held_count())[0][0]
    asserted = dict(session.rows(Statements.first_assertions()))
    return Shape(
        audience_size=counts.audience_size,
        held=held,
        added=asserted.get("added", 0),
        changed=asserted.get("changed", 0),
        removed=counts.removed - frozen.urgent,
        is_append=statements.sync.mode is SyncMode.APPEND,
    )


def _frozen_plan(
    project: Project,
    sync: Sync,
    given: PlanInput,
    counts: Counts,
    frozen: Frozen,
    held: Held | None,
    closed: Sequence[tuple[str, str]],
) -> FrozenPlan:
    identity = "\x1f".join(
        (sync.name, sync.account.name, mapping_signature(sync), given.ledger_position, frozen.content_hash)
    )
    plan = Plan(
        plan_id=hashlib.sha256(identity.encode()).hexdigest()[:16],
        sync=sync.name,
        counts=counts,
        rows=frozen.rows,
        held_reason=held.reason if held else None,
        created_at=given.now,
        expires_at=given.now + timedelta(minutes=project.settings.plan.expires_minutes),
    )
    return FrozenPlan(plan=plan, frozen=frozen, content_hash=frozen.content_hash, closed_rejections=closed)
