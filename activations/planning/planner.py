"""From an audience to a frozen plan: what was found, counted, guarded and named."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial

from activations.config import Project, Sync
from activations.digests import Digester
from activations.errors import PlanRejected
from activations.guards import Shape, checks, held_because
from activations.manifest import Audience, Manifest, check_sync
from activations.model import Counts, GuardCheck, Plan, SyncMode
from activations.planning.comparing import Compared, PlanInput, compared
from activations.planning.freezing import Frozen
from activations.planning.gate import check_relations, check_spoken
from activations.planning.inputs import Expectation
from activations.planning.statements import Statements, mapping_signature
from activations.warehouses import Session, Warehouse


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
    statements = with_types(session, statements)
    check_spoken(session, statements)
    found = compared(session, statements, given)
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
    digester = partial(Digester.for_use, given.installation_key)
    return Statements(
        project=project,
        sync=sync,
        audience=audience,
        eligibility=manifest.relation(project.settings.dbt.eligibility),
        holdouts=manifest.relation(project.settings.dbt.holdouts),
        warehouse=warehouse,
        identities=digester("identity"),
        payloads=digester("payload", mapping_signature(sync)),
        suppressions=digester("suppression"),
        pseudonyms=digester("pseudonym", sync.name),
        has_suppressions=bool(given.suppressions),
    )


_NATIVE = {
    "varchar", "text", "character varying", "uuid",
    "tinyint", "smallint", "integer", "bigint", "hugeint", "utinyint", "usmallint", "uinteger", "ubigint",
}  # fmt: skip
"""Types whose values are equal exactly when their texts are."""


def with_types(session: Session, statements: Statements) -> Statements:
    """With what the warehouse says of the columns."""
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


def _counts(found: Compared) -> Counts:
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


def _shape(sync: Sync, counts: Counts, found: Compared) -> Shape:
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
        held_reason=held_because(guards, approved=frozen.content_hash in given.approved),
        created_at=given.now,
        expires_at=given.now + timedelta(minutes=project.settings.plan.expires_minutes),
    )
