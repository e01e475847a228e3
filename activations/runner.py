"""The engine as programs and people use it: every command is a method of `Engine`."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from activations import config, feedback, ledger
from activations.config import Project
from activations.cost import with_cost
from activations.destinations.registry import KINDS
from activations.digests import forms_of_identity
from activations.errors import ActivationsError, PlanRejected
from activations.explain import Explanation, explain
from activations.feedback import Feedback
from activations.identity import Graph, read_graph
from activations.journal import Journal, MessageInDoubt
from activations.manifest import check_sync, load_manifest
from activations.model import Callback, Plan, RunStatus, SyncMode, SyncRun
from activations.parts import Parts, build_destination
from activations.planning import PlanDocument, Preview, document, some_rows
from activations.planning.refreshing import sieve_file
from activations.run import OnProgress, Run, discard_plans, last_known, new_run, recover

__all__ = ["Engine", "OnProgress", "Suppressed", "load_project"]

APPROVAL_VALID = timedelta(hours=24)


@dataclass(frozen=True, slots=True, kw_only=True)
class Suppressed:
    """What came of a suppression."""

    known: int
    """How many of the identifiers belong to somebody that dbt knows; the others are kept too."""
    effective_at: datetime
    """What was claimed before may leave until then, and nothing but a removal after it."""
    unasked: str | None = None
    """Why the warehouse could not be asked whom the identifiers belong to: no other identifier of theirs is suppressed."""


def load_project(root: Path | None = None) -> Project:
    """The project in or above `root` (default: the current folder), with every known kind of destination."""
    return config.load_project(root, KINDS)


@dataclass(slots=True)
class Engine(Parts):
    """Plans and runs the syncs of one project."""

    def prepare(self) -> None:
        """Create what dbt and the engine expect: the ledger's tables and the journal."""
        ledger.prepare(self.warehouse())
        with self.journal():
            pass

    def plan(self, name: str) -> Plan:
        """What a run would do now. Sends nothing; what an earlier run left is settled first, as a run would do."""
        return self.preview(name).plan

    def preview(self, name: str, *, rows: int = 0) -> Preview:
        """What a run would do now, with at most so many rows of each operation."""
        sync = self.project.sync(name)
        with self.leased(name) as (journal, lease):
            recover(self, sync, journal, lease)
            self.merge_pending(sync, journal, lease)
            path = self.plans / f"preview-{name}-{uuid.uuid4().hex[:12]}.parquet"
            try:
                with self.warehouse().read() as session:
                    frozen = self.make_plan(sync, journal, session, path)
                return Preview(
                    plan=with_cost(frozen.plan, sync, journal),
                    rows=some_rows(frozen.frozen.file, sync, rows),
                )
            finally:
                for left in (path, sieve_file(path)):
                    left.unlink(missing_ok=True)

    def save_plan(self, preview: Preview, path: Path) -> None:
        """Write a plan down, to be read and applied."""
        document.write(path, preview.summary(), self.digester("plan"))

    def sync(self, name: str, on_progress: OnProgress | None = None) -> SyncRun:
        """Plan and deliver. Returns the finished run, also a failed or held one; raises when no plan could be made."""
        return self._run(name, on_progress, None)

    def read_plan(self, path: Path) -> PlanDocument:
        """A plan that was written down by this installation and has not expired."""
        written = document.read(path, self.digester("plan"))
        written.check_time(self.clock.now())
        return written

    def apply(self, plan: Path, on_progress: OnProgress | None = None) -> SyncRun:
        """Deliver exactly the plan that was written down; PlanRejected when it no longer is what a run would do."""
        written = self.read_plan(plan)
        return self._run(written.sync, on_progress, written)

    def _run(self, name: str, on_progress: OnProgress | None, expected: PlanDocument | None) -> SyncRun:
        sync = self.project.sync(name)
        destination = build_destination(self.project, sync)
        with self.leased(name) as (journal, lease):
            run = Run(
                parts=self,
                sync=sync,
                journal=journal,
                lease=lease,
                destination=destination,
                expected=expected,
            )
            return run.go(on_progress or (lambda _: None))

    def status(self) -> list[SyncRun]:
        """The last run of every sync, in the order of their names, also while it is under way; a sync that never ran is
        NEVER_RUN."""
        with self.journal() as journal:
            last = journal.last_runs()
            return [
                last_known(journal, SyncRun.from_summary(last[name]))
                if name in last
                else new_run(sync, "", None, RunStatus.NEVER_RUN)
                for name, sync in self.project.syncs.items()
            ]

    def left_behind(self) -> list[SyncRun]:
        """The last run of every mirror whose file is gone, unless it left nobody at the destination or somebody had that
        forgotten: nobody is removed from there any more, whatever they say."""
        with self.journal() as journal:
            ended = [
                last_known(journal, SyncRun.from_summary(summary))
                for name, summary in journal.last_runs().items()
                if name not in self.project.syncs
            ]
            left = [run for run in ended if run.mode is SyncMode.MIRROR and _left_somebody(run, journal)]
            forgotten = journal.forgotten_since_last_run() if left else ()
            return [run for run in left if run.sync not in forgotten]

    def check(self) -> list[str]:
        """Every sync against the manifest; returns their names. The first problem is raised."""
        manifest = load_manifest(self.project)
        for sync in self.project.syncs.values():
            check_sync(
                sync, manifest.audience(sync.audience, sync.file), self.project.settings.dbt.person_key
            )
        manifest.relation(self.project.settings.dbt.eligibility)
        manifest.relation(self.project.settings.dbt.holdouts)
        return list(self.project.syncs)

    def release_plan(self, plan: Path, *, by: str, note: str) -> str:
        """Let the plan that was written down pass the guards, once, as it is. Returns the plan's id."""
        written = self.read_plan(plan)
        with self.journal() as journal:
            journal.approve(written.sync, written.content_hash, by=by, note=note, valid=APPROVAL_VALID)
        return written.plan_id

    def release(self, name: str, *, by: str, note: str) -> str:
        """Let the plan that is held pass, once, as it is. Returns the run that held it."""
        self.project.sync(name)
        with self.journal() as journal:
            held = journal.held_plan(name)
            if held is None:
                raise PlanRejected(
                    f"the last run of `{name}` is not held, so there is nothing to release. See `activations status`"
                )
            journal.approve(name, held[1], by=by, note=note, valid=APPROVAL_VALID)
        return held[0]

    def suppress(self, identifiers: Sequence[str], *, channel: str, reason: str, source: str) -> Suppressed:
        """From the next claim on, nothing but a removal leaves for these people, by whichever of their identifiers they
        are known. A "no" is recorded even while the warehouse is locked or not built, then of what was named alone."""
        try:
            graph, unasked = self._graph_of(identifiers), None
        except (ActivationsError, OSError) as error:
            graph, unasked = Graph({}), str(error)
        digest = self.digester("suppression")
        said = {digest(_named(i)): [digest(form) for form in graph.forms(i)] for i in identifiers}
        with self.journal() as journal:
            effective_at = journal.suppress(said, channel=channel, reason=reason, source=source)
        known = sum(bool(graph.people(identifier)) for identifier in identifiers)
        return Suppressed(known=known, effective_at=effective_at, unasked=unasked)

    def lift(self, identifiers: Sequence[str], *, channel: str, reason: str, source: str) -> int:
        """Take back what was said by naming these on exactly this channel, with all it stood for; of how many of them
        there was something."""
        digest = self.digester("suppression")
        named = [digest(name) for name in dict.fromkeys(map(_named, identifiers))]
        with self.journal() as journal:
            return journal.lift(named, channel=channel, reason=reason, source=source)

    def forget(self, name: str, *, by: str, note: str) -> None:
        """Forget what the destination of a sync holds: the next run sends everybody again. Messages that were sent
        are not forgotten. Of a sync whose file is gone: whoever is there stays, or was taken out by hand."""
        sync = self.project.syncs.get(name)
        if sync is None and name not in [run.sync for run in self.left_behind()]:
            self.project.sync(name)  # an error with the names there are
        with self.leased(name) as (journal, lease):
            with self.warehouse().write() as session:
                if sync and sync.mode is SyncMode.APPEND:  # only its journal knows which messages left
                    ledger.require_its_journal(session, journal, sync)
                ledger.forget(session, journal, lease, by=by, note=note)
            discard_plans(self, journal, lease)

    def adopt(self, name: str, *, by: str, note: str) -> None:
        """Go on with this journal in the place of one that is lost."""
        sync = self.project.sync(name)
        with self.leased(name) as (journal, lease), self.warehouse().write() as session:
            ledger.adopt(session, journal, lease, sync, by=by, note=note)

    def retry(self, name: str, *, by: str, note: str) -> int:
        """Rows that the destination refused are tried again by the next run. Returns how many."""
        self.project.sync(name)
        with self.leased(name) as (journal, lease):
            return journal.retry_rejected(lease, by=by, note=note)

    def resync(self, name: str, *, by: str, note: str) -> int:
        """Everybody's values are sent again by the next run; who has to leave still leaves. Returns how many rows."""
        sync = self.project.sync(name)
        if sync.mode is SyncMode.APPEND:
            raise ActivationsError(f"`{name}` sends messages, and those are never all sent again")
        with self.leased(name) as (journal, lease):
            recover(self, sync, journal, lease)
            self.merge_pending(sync, journal, lease)
            with self.warehouse().write() as session:
                rows = ledger.resync(session, sync)
            journal.decided(lease, "resynced", by=by, note=note)
        return rows

    def in_doubt(self, name: str) -> list[MessageInDoubt]:
        """Messages that nobody knows the fate of, also those of an engine that died, unless another works on the sync."""
        sync = self.project.sync(name)
        with suppress(ActivationsError), self.leased(name) as (journal, lease):
            recover(self, sync, journal, lease)
        with self.journal() as journal:
            return journal.messages_in_doubt(name)

    def feedback(self, account: str, callbacks: Iterable[Callback]) -> Feedback:
        """Settle messages in doubt that the provider says it took, by its signed callbacks."""
        return feedback.settle(self, account, callbacks)

    def mark_delivered(self, name: str, handle: str, *, by: str, note: str) -> None:
        """Somebody found out that a message in doubt did arrive; `note` is the evidence."""
        self.project.sync(name)
        with self.leased(name) as (journal, lease):
            journal.mark_delivered(lease, handle, by=by, note=note)

    def resend(self, name: str, handle: str, *, by: str, second: str, note: str) -> None:
        """Two people decide that a message in doubt is sent again, as a new one, by the next run."""
        self.project.sync(name)
        with self.leased(name) as (journal, lease):
            journal.resend_as_new(lease, handle, by=by, second=second, note=note)

    def explain(self, person: str) -> list[Explanation]:
        """For every sync: why this person is in or out, and what the destination holds."""
        manifest = load_manifest(self.project)
        with self.journal() as journal, self.warehouse().read() as session:
            return [
                explain(
                    self.project,
                    sync,
                    manifest,
                    self.warehouse(),
                    session,
                    self.plan_input(sync, journal, Path()),
                    person,
                )
                for sync in self.project.syncs.values()
            ]

    def people_with(self, identifier: str) -> list[str]:
        """The person ids that an identifier belongs to, by dbt's identity graph."""
        return self._graph_of([identifier]).people(identifier)

    def _graph_of(self, identifiers: Sequence[str]) -> Graph:
        dbt = self.project.settings.dbt
        relation = load_manifest(self.project).relation(dbt.identifiers)
        with self.warehouse().read() as session:
            return read_graph(session, relation, dbt.person_key, identifiers)

    def verify_audit(self) -> int:
        with self.journal() as journal:
            return journal.verify_audit()


def _left_somebody(run: SyncRun, journal: Journal) -> bool:
    """Whether it is possible that somebody is at the destination of a mirror after its last run."""
    return not run.left_nobody or any(row.maybe for row in journal.open_rows(run.sync))


def _named(identifier: str) -> str:
    """However it is written the next time."""
    return forms_of_identity(identifier)[-1]
