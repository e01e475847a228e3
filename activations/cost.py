"""What a plan costs to send."""

from __future__ import annotations

from dataclasses import replace

from activations.config import Sync
from activations.destinations.registry import KINDS
from activations.journal import Journal
from activations.model import Plan


def with_cost(plan: Plan, sync: Sync, journal: Journal) -> Plan:
    """The plan with the API calls a run makes and the seconds they take: by the account's rate, or by the last run
    of the sync that sent anything, whichever is slower."""
    requests = _requests(plan.removals, sync, removals=True)
    requests += _requests(plan.rows - plan.removals, sync, removals=False)
    rate = sync.account.rate_limit or sync.capabilities.requests_per_second
    last = journal.last_runs().get(sync.name, {})
    measured = last["seconds"].get("deliver", 0.0) / last["requests"] if last.get("requests") else None
    paces = [pace for pace in (1 / rate if rate else None, measured) if pace]
    return replace(plan, requests=requests, seconds=round(requests * max(paces), 1) if paces else None)


def _requests(rows: int, sync: Sync, *, removals: bool) -> int:
    kind = KINDS[sync.account.kind]
    whole, rest = divmod(rows, sync.batch_rows)
    last = kind.requests_for(rest, removals=removals) if rest else 0
    return whole * kind.requests_for(sync.batch_rows, removals=removals) + last
