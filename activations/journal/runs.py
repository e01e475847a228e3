"""Runs, and the approvals that let a held plan pass."""

from __future__ import annotations

import json
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

from activations.journal.base import Base, iso
from activations.journal.records import Lease
from activations.model import Outcome, SyncRun


class Runs(Base):
    def save_run(
        self,
        lease: Lease,
        run: SyncRun,
        *,
        content_hash: str | None = None,
        plan_path: Path | None = None,
        in_ledger: bool = False,
    ) -> None:
        """Insert or replace what is known about a run; plan facts once given are kept. `in_ledger`: the ledger knows it
        as well."""
        with self._fenced(lease):
            self._store.run(
                "insert into run (run_id, sync, epoch, owner, status, content_hash, plan_path, summary, created_at, finished_at, in_ledger) "
                "values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) on conflict (run_id) do update set "
                "status = excluded.status, summary = excluded.summary, finished_at = excluded.finished_at, in_ledger = excluded.in_ledger, "
                "content_hash = coalesce(excluded.content_hash, run.content_hash), plan_path = coalesce(excluded.plan_path, run.plan_path)",
                run.run_id,
                run.sync,
                lease.epoch,
                lease.owner,
                run.run_status.value,
                content_hash,
                plan_path.name if plan_path else None,
                json.dumps(run.summary() | {"place": run.place}, sort_keys=True),
                iso(run.started_at or self._now()),
                iso(run.finished_at) if run.finished_at else None,
                int(in_ledger),
            )

    def last_runs(self) -> dict[str, dict[str, Any]]:
        """Sync → summary of its latest run."""
        rows = self._store.rows(
            "select sync, summary from run as r where created_at = (select max(created_at) from run where sync = r.sync) order by run_id"
        )
        return {sync: json.loads(summary) for sync, summary in rows}

    def forgotten_since_last_run(self) -> set[str]:
        """Syncs of which somebody had everything forgotten, and that did not run afterwards."""
        started = dict(self._store.rows("select sync, max(created_at) from run group by sync"))
        lines = self._store.rows("select at, event from audit where event like ?", '%"forgotten"%')
        events = [(at, json.loads(text)) for at, text in lines]
        return {
            e["sync"] for at, e in events if e["event"] == "forgotten" and at >= started.get(e["sync"], "")
        }

    def owner_of(self, run_id: str) -> str:
        """Host and process."""
        return str(self._one("select owner from run where run_id = ?", run_id))

    def unfinished_runs(self, sync: str) -> list[dict[str, Any]]:
        return self._summaries("select summary from run where sync = ? and finished_at is null", sync)

    def runs_for_ledger(self, sync: str) -> list[dict[str, Any]]:
        """Finished runs whose line in the ledger is missing or older."""
        return self._summaries(
            "select summary from run where sync = ? and finished_at is not null and in_ledger = 0 order by created_at",
            sync,
        )

    def _summaries(self, query: str, sync: str) -> list[dict[str, Any]]:
        return [json.loads(summary) for (summary,) in self._store.rows(query, sync)]

    def outcomes_of(self, run_id: str) -> Counter[Outcome]:
        """What became of a run's rows, by the batches that are recorded."""
        found: Counter[Outcome] = Counter()
        for (tally,) in self._store.rows(
            "select tally from batch where run_id = ? and tally is not null", run_id
        ):
            found.update({Outcome(name): rows for name, rows in json.loads(tally).items()})
        return found

    def run_ids(self, sync: str) -> frozenset[str]:
        return frozenset(i for (i,) in self._store.rows("select run_id from run where sync = ?", sync))

    def plans_in_use(self, lease: Lease) -> set[str]:
        """Names of plan files that a batch still refers to; Fenced when somebody else has the sync by now."""
        with self._fenced(lease):
            rows = self._store.rows(
                "select distinct plan_path from run join batch using (run_id) where state in ('in_flight', 'recorded') and plan_path is not null"
            )
        return {name for (name,) in rows}

    # -- approvals ---------------------------------------------------------------------------------------------

    def held_plan(self, sync: str) -> tuple[str, str] | None:
        """(run_id, content_hash) of the sync's latest run, when that run is held."""
        rows = self._store.rows(
            "select run_id, content_hash, summary from run where sync = ? order by created_at desc limit 1",
            sync,
        )
        return next(((run, plan) for run, plan, text in rows if json.loads(text)["held_reason"]), None)

    def approve(self, sync: str, content_hash: str, *, by: str, note: str, valid: timedelta) -> None:
        """A person lets exactly this plan pass. Audited; void when the plan changes or the time is over."""
        now = self._now()
        with self._store.transaction():
            self._store.run(
                "insert into approval values (?, ?, ?, ?, ?, ?, null)",
                *(sync, content_hash, by, note, iso(now), iso(now + valid)),
            )
            self._append_audit(
                {"event": "plan_released", "sync": sync, "plan": content_hash, "by": by, "note": note}
            )

    def approved(self, sync: str) -> frozenset[str]:
        """The content hashes that may pass now."""
        rows = self._store.rows(
            "select content_hash from approval where sync = ? and used_by_run is null and expires_at > ?",
            *(sync, iso(self._now())),
        )
        return frozenset(content_hash for (content_hash,) in rows)

    def use_approval(self, lease: Lease, content_hash: str, run_id: str) -> None:
        with self._fenced(lease):
            self._store.run(
                "update approval set used_by_run = ? where sync = ? and content_hash = ? and used_by_run is null",
                *(run_id, lease.sync, content_hash),
            )
