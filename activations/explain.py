"""Why one person is in or out, sync by sync, in the order in which the rules are asked."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa
import sqlglot.expressions as exp
from sqlglot import select

from activations.config import Project, Sync
from activations.manifest import Manifest, check_sync
from activations.planning import PlanInput
from activations.planning.planner import statements_for
from activations.planning.statements import OPEN_ROWS, SUPPRESSIONS
from activations.warehouses import Session, Warehouse


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """One person in one sync. Holds no personal data: rules, states and times."""

    sync: str
    in_audience: bool
    verdict: str
    """`in_scope`, or what keeps the person out: `ineligible:…`, `held_out`, `invalid:…`, `waiting:…`, `not_in_audience`."""
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
    statements = statements_for(project, sync, audience, manifest, warehouse, given)
    session.load(SUPPRESSIONS, pa.table({"digest": pa.array(given.suppressions, pa.string())}))
    session.load(OPEN_ROWS, given.open_rows)
    scope = statements.scope(has_suppressions=bool(given.suppressions)).subquery("scope")
    verdicts = [
        row[0] for row in session.rows(select("verdict").from_(scope).where(exp.column("person").eq(person)))
    ]
    eligibility = session.rows(statements.eligibility_of(person))
    acknowledged = session.rows(
        "select max(acked_at) from activation.sync_snapshot where sync = ? and split_part(primary_key, chr(31), 1) = ?",
        [sync.name, person],
    )
    opened = session.rows(
        f"select state from {OPEN_ROWS} where split_part(row_key, chr(31), 1) = ?", [person]
    )
    blockers, deferred, event, evaluated = eligibility[0] if eligibility else ("unknown", False, None, None)
    return Explanation(
        sync=sync.name,
        in_audience=bool(verdicts),
        verdict=", ".join(sorted(set(verdicts))) or "not_in_audience",
        blockers=tuple(filter(None, (blockers or "").split(","))),
        is_deferred=bool(deferred),
        consent_event_id=event,
        evaluated_at=evaluated,
        held_by_destination=acknowledged[0][0] is not None,
        acknowledged_at=acknowledged[0][0],
        open_state=opened[0][0] if opened else None,
    )
