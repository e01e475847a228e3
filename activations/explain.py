"""Why one person is in or out, sync by sync, in the order in which the rules are asked."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import sqlglot.expressions as exp

from activations.config import Project, Sync
from activations.digests import SEPARATOR
from activations.manifest import Manifest, check_sync
from activations.planning import PlanInput
from activations.planning.comparing import compare
from activations.planning.gate import Rules
from activations.planning.planner import statements_for, with_types
from activations.planning.statements import DIFFERENCE, OPEN_ROWS, SCOPE
from activations.warehouses import Session, Warehouse


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """One person in one sync. Holds no personal data: rules, states and times."""

    sync: str
    in_audience: bool
    verdict: str
    """`in_scope`, or what keeps the person out: `ineligible:…`, `held_out`, `invalid:…`, `waiting:…`,
    `not_in_audience`."""
    next_operation: str | None
    """What the next run would do: added, changed or removed; None when nothing."""
    blockers: tuple[str, ...]
    """Every eligibility rule that says no, the first one first."""
    is_deferred: bool
    consent_event_id: str | None
    evaluated_at: datetime | None
    held_by_destination: bool
    """Whether the destination acknowledged the person and was not told to remove them."""
    acknowledged_at: datetime | None
    open_state: str | None
    """in_doubt, settling or rejected, when an attempt is not settled."""

    @property
    def is_of_somebody(self) -> bool:
        """Whether dbt or the destination knows the person at all."""
        return bool(self.in_audience or self.evaluated_at or self.held_by_destination or self.open_state)

    def summary(self) -> dict[str, Any]:
        return {
            name: value.isoformat() if isinstance(value, datetime) else value
            for name, value in asdict(self).items()
        }


def explain(
    project: Project,
    sync: Sync,
    manifest: Manifest,
    warehouse: Warehouse,
    session: Session,
    given: PlanInput,
    person: str,
) -> Explanation:
    """Ask the very statements of planning about one person."""
    audience = manifest.audience(sync.audience, sync.file)
    check_sync(sync, audience, project.settings.dbt.person_key)
    statements = with_types(session, statements_for(project, sync, audience, manifest, warehouse, given))
    compare(session, statements, given)
    scope = session.rows(exp.select("verdict").from_(SCOPE).where(exp.column("person").eq(person)))
    changes = session.rows(exp.select("verdict").from_(DIFFERENCE).where(_of(person, "row_key")))
    # In scope by the rules, and yet waiting, or with an address that somebody else holds.
    kept_back = {verdict for (verdict,) in changes if ":" in verdict}
    verdicts = kept_back or {verdict for (verdict,) in scope}
    eligibility = session.rows(Rules(statements).eligibility_of(person))
    mine = exp.column("sync").eq(sync.name)
    acknowledged = session.rows(
        exp.select("max(acked_at)").from_("activation.sync_snapshot").where(mine, _of(person, "primary_key"))
    )
    opened = session.rows(exp.select("state").from_(OPEN_ROWS).where(_of(person, "row_key")))
    blockers, deferred, event, evaluated = eligibility[0] if eligibility else ("unknown", False, None, None)
    return Explanation(
        sync=sync.name,
        in_audience=bool(scope),
        verdict=", ".join(sorted(verdicts)) or "not_in_audience",
        next_operation=", ".join(sorted({verdict for (verdict,) in changes} - kept_back)) or None,
        blockers=tuple(filter(None, (blockers or "").split(","))),
        is_deferred=bool(deferred),
        consent_event_id=event,
        evaluated_at=evaluated,
        held_by_destination=acknowledged[0][0] is not None,
        acknowledged_at=acknowledged[0][0],
        open_state=opened[0][0] if opened else None,
    )


def _of(person: str, column: str) -> exp.Expr:
    """Keys of messages begin with the person and go on with the occurrence."""
    key, literal = exp.column(column), exp.Literal.string
    return exp.or_(key.eq(person), exp.func("starts_with", key.copy(), literal(f"{person}{SEPARATOR}")))
