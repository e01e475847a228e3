"""What a plan shows to a person before it is applied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import polars as pl

from activations.config import Sync
from activations.model import Counts, Operation, Plan
from activations.planning.marks import changed_fields
from activations.planning.planfile import PlanFile


@dataclass(frozen=True, slots=True, kw_only=True)
class RowChange:
    """One row of a plan, without anything that names its person."""

    person: str
    """A keyed hash of (sync, identity), shortened: the same person in every plan of the sync."""
    operation: Operation
    reason: str | None
    """Of a removal: why the person has to leave."""
    fields: Sequence[str]
    """What changes, in the destination's words; empty for additions and removals."""
    before: str | None
    """Fingerprint of what the destination holds, shortened."""
    after: str | None


SHOWN = ("verdict", "cause", "pseudonym", "old_hash", "payload_hash", "old_marks", "field_marks")


def some_rows(plan: PlanFile, sync: Sync, limit: int) -> list[RowChange]:
    """At most so many rows of each operation, in the plan's order."""
    rows = pl.scan_parquet(plan.path).select(SHOWN)
    found = [rows.filter(pl.col("verdict") == operation.value).head(limit) for operation in Operation]
    return [_row_change(sync, *row) for row in pl.concat(found).collect().iter_rows()] if limit else []


def _row_change(
    sync: Sync,
    verdict: str,
    cause: str | None,
    pseudonym: str,
    old_hash: str | None,
    new_hash: str | None,
    old_marks: Sequence[int] | None,
    new_marks: Sequence[int] | None,
) -> RowChange:
    return RowChange(
        person=pseudonym[:12],
        operation=Operation(verdict),
        reason=cause,
        fields=changed_fields(sync, old_marks, new_marks) if verdict == Operation.CHANGED else (),
        before=_short(old_hash),
        after=_short(new_hash) if verdict != Operation.REMOVED else None,
    )


def _short(fingerprint: str | None) -> str | None:
    return fingerprint[:8] if fingerprint else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """A plan, and as many of its rows as somebody asked for."""

    plan: Plan
    rows: Sequence[RowChange]

    def summary(self) -> dict[str, Any]:
        """JSON-ready: the plan, with `rows` where there are any."""
        return summary(self.plan) | ({"rows": [asdict(row) for row in self.rows]} if self.rows else {})


def summary(plan: Plan) -> dict[str, Any]:
    """A plan as JSON: counts by operation and reason, the guards, about what a run costs, and what it is bound to."""
    counts = {name: getattr(plan.counts, name) for name in Counts.__dataclass_fields__}
    guards = [
        {"name": g.name, "figure": g.figure, "limit": g.limit, "passes": not g.problem} for g in plan.guards
    ]
    return {
        "sync": plan.sync,
        "plan_id": plan.plan_id,
        "destination": plan.destination,
        **{name: dict(found) if isinstance(found, Mapping) else found for name, found in counts.items()},
        "guards": guards,
        "held_reason": plan.held_reason,
        "requests": plan.requests,
        "seconds": plan.seconds,
        "created_at": plan.created_at.isoformat(),
        "expires_at": plan.expires_at.isoformat(),
        "mapping": plan.mapping,
        "ledger_position": plan.ledger_position,
        "content_hash": plan.content_hash,
    }
