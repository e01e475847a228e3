"""An engine that answers with a given run: the asset is under test here, not the delivery."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from activations.config import Sync
from activations.model import Counts, RunStatus, SyncRun
from dagster_project.resources import Activations


def a_run(sync: Sync, /, **changes: Any) -> SyncRun:
    """Fifty people, ten of them ineligible, everybody else delivered."""
    reasons = {"consent": 7, "suppressed": 3}
    run = SyncRun(
        run_id="run-1",
        sync=sync.name,
        audience=sync.audience,
        destination=sync.account.name,
        channel=sync.channel,
        purpose=sync.purpose,
        mode=sync.mode,
        run_status=RunStatus.SUCCEEDED,
        plan_id="plan-1",
        counts=Counts(audience_size=50, ineligible=10, added=40, ineligible_by_reason=reasons),
        delivered=40,
        requests=1,
        seconds={"plan": 0.25, "deliver": 1.5},
    )
    return replace(run, **changes)


@dataclass
class OneRun:
    """Whatever is synced, this is what came of it."""

    run: SyncRun | Exception

    def sync(self, name: str) -> SyncRun:
        if isinstance(self.run, Exception):
            raise self.run
        return self.run


def engine_that_returns(run: SyncRun | Exception) -> Activations:
    class Answering(Activations):
        def engine(self) -> Any:
            return OneRun(run)

    return Answering(root=".")
