"""The invariants, each one assertion, asked where the protocol says: on departure, on arrival, after merges, at the end."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl

from activations.config import Guard, Project
from activations.delivery import Rows
from activations.delivery.deliverer import SEND_WITHIN
from activations.digests import SEPARATOR
from activations.model import SyncRun
from activations.runner import Engine
from tests.simulation.ports import EPOCH, Database, Ports, connect_sqlite, run
from tests.simulation.provider import MESSAGES, PEOPLE, Arrival, Provider
from tests.simulation.scheduler import Process
from tests.simulation.world import CANARIES, World, is_bad

EFFECTIVE_AFTER = 10.0
"""Seconds from a committed suppression to the moment it holds: send deadline and twice the clock skew."""


class Violation(AssertionError):
    """`invariant` is the protocol's name."""

    def __init__(self, invariant: str, what: str) -> None:
        self.invariant = invariant
        super().__init__(f"{invariant}: {what}")


@dataclass(frozen=True, slots=True)
class Wait:
    """What a run was told, and when it had committed it. Its own sync's next run knows at once, those of another sync
    that run already with their next intent."""

    sync: str
    since: float
    until: float


@dataclass(slots=True)
class Referee:
    """Sees everything, changes nothing."""

    ports: Ports
    world: World
    project: Project
    database: Database
    guard: Guard
    several_hosts: bool
    provider: Provider = field(init=False)
    violations: list[Violation] = field(default_factory=list)
    run_started: dict[str, float] = field(default_factory=dict)
    """Process → when its present run began."""
    suppressed: dict[str, float] = field(default_factory=dict)
    """Person or address → when the suppression was committed."""
    blocked_since: dict[str, float] = field(default_factory=dict)
    """Person → since when the warehouse says no."""
    ever_refused: set[str] = field(default_factory=set)
    """People who said no at some time, in the warehouse or by a suppression of whatever is theirs."""
    own_waits: dict[str, float] = field(default_factory=dict)
    committed_waits: list[Wait] = field(default_factory=list)
    ambiguous: set[str] = field(default_factory=set)
    """Message keys that a really ambiguous event hit."""
    said: list[str] = field(default_factory=list)
    """Everything that an engine told people: errors, summaries, logs."""
    released: set[str] = field(default_factory=set)
    """Content of the plans that somebody let pass."""
    _removals: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    _departures: list[tuple[float, float]] = field(default_factory=list)
    _limits: dict[str, float] = field(default_factory=dict)
    _keys: dict[tuple[str, str], str] = field(default_factory=dict)
    _pseudonyms: dict[str, str] = field(default_factory=dict)
    _engine_rows: dict[str, Rows] = field(default_factory=dict)
    _planned: dict[Path, list[str]] = field(default_factory=dict)
    """Plan file → what its rows are called at the other side. No plan changes once it is there."""
    _journal: sqlite3.Connection | None = None

    def blame(self, invariant: str, what: str) -> None:
        self.violations.append(Violation(invariant, f"at {self.ports.scheduler.now:.1f} s {what}"))

    # -- reading the stores beside the engine ------------------------------------------------------------------

    def journal(self, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
        if self._journal is None:
            self._journal = connect_sqlite(
                self.project.var / "journal.sqlite3", isolation_level=None, check_same_thread=False
            )
        return self._journal.execute(query, parameters).fetchall()

    def close(self) -> None:
        if self._journal is not None:
            self._journal.close()

    def ledger(self, query: str) -> list[tuple[Any, ...]]:
        return run(self.database.db, query).fetchall()

    def message_key(self, person: str, event: str) -> str:
        """As the engine names it; asked of the engine, since the name is not what is judged."""
        if (person, event) not in self._keys:
            row: Any = SimpleNamespace(position=0, row_key=f"{person}{SEPARATOR}{event}")
            self._keys[person, event] = self._rows(MESSAGES).message_keys([row])[0]
        return self._keys[person, event]

    def _pseudonym(self, identity: str) -> str:
        """What the other side calls a row of the mirror; again the engine's word."""
        if identity not in self._pseudonyms:
            row: Any = SimpleNamespace(position=0, row_key="", identity=identity)
            self._pseudonyms[identity] = self._rows(PEOPLE).pseudonym(row)
        return self._pseudonyms[identity]

    def _rows(self, sync: str) -> Rows:
        if sync not in self._engine_rows:
            self._engine_rows[sync] = Engine(self.project).rows(self.project.sync(sync))
        return self._engine_rows[sync]

    # -- on departure and arrival ------------------------------------------------------------------------------

    def on_departure(self, arrival: Arrival) -> None:
        self._intent_is_committed(arrival)
        self._is_not_fenced(arrival)
        self._keeps_the_rate(arrival)
        self._nobody_who_said_no(arrival)
        self._left_alone(arrival)
        if arrival.sync == PEOPLE:
            self._no_mass_removal(arrival)

    def _intent_is_committed(self, arrival: Arrival) -> None:
        covering = self.journal(
            "select count(*) from batch where run_id = ? and state = 'in_flight' and first <= ? and first + count >= ? + ?",
            arrival.run_id,
            arrival.number,
            arrival.number,
            len(arrival.changes),
        )
        if covering != [(1,)]:
            self.blame("I6", f"{len(arrival.changes)} rows of {arrival.sync} left without a committed intent")

    def _is_not_fenced(self, arrival: Arrival) -> None:
        """Whoever takes a lease over may rely on it that nothing leaves any more from the one before."""
        epoch = self.journal("select epoch from run where run_id = ?", arrival.run_id)[0][0]
        latest = self.journal("select epoch from lease where sync = ?", arrival.sync)[0][0]
        if epoch < latest:
            self.blame("I8", f"{arrival.sync} sends in epoch {epoch}, and {latest} has begun")

    def _keeps_the_rate(self, arrival: Arrival) -> None:
        """No window of time has more requests than places, but for those that a stall held up (the first of the window
        may have had an earlier place), and for as much as the clocks of hosts differ: each reckons by its own."""
        if not (rate := self.requests_per_second):
            return
        self._departures.append((arrival.left_at, self.hold_up))
        for count, (left_at, hold_up) in enumerate(reversed(self._departures), 1):
            window = arrival.left_at - left_at + hold_up + self.clocks_differ
            if count > window * rate + 1:
                self.blame(
                    "I10", f"{count} requests in {arrival.left_at - left_at:.1f} s, at {rate:g} a second"
                )
                return

    def _nobody_who_said_no(self, arrival: Arrival) -> None:
        process = self.ports.process
        began = self.run_started.get(process.name, 0.0) if process else 0.0
        for change in arrival.changes:
            if change["operation"] == "removed":
                continue
            email, person = change["identifiers"]["email"], change["fields"]["person"]
            said_no = min(self.suppressed.get(email, 1e9), self.suppressed.get(person, 1e9))
            if arrival.left_at > said_no + EFFECTIVE_AFTER:
                self.blame(
                    "I1",
                    f"{arrival.sync} sends to {person}, suppressed {arrival.left_at - said_no:.1f} s before",
                )
            if self.blocked_since.get(person, 1e9) < began:
                self.blame("I1", f"{arrival.sync} sends to {person}, blocked before the run began")

    def _left_alone(self, arrival: Arrival) -> None:
        process = self.ports.process
        own = self.own_waits.get(process.name, 0.0) if process and self.is_serial else 0.0
        told_before = max(
            (
                wait.until - self.clocks_differ
                for wait in self.committed_waits
                if wait.until > arrival.left_at
                and (wait.sync == arrival.sync or self._claimed_at(arrival) > wait.since + self.clocks_differ)
            ),
            default=0.0,
        )
        until = max(own, told_before)
        if arrival.left_at < until - 0.01:
            self.blame("I10", f"{arrival.sync} sends {until - arrival.left_at:.1f} s before Retry-After")

    def _claimed_at(self, arrival: Arrival) -> float:
        """By the clock of the process, as the intent says it."""
        [(at,)] = self.journal(
            "select max(claimed_at) from batch where run_id = ? and state = 'in_flight' and first <= ? and first + count > ?",
            *(arrival.run_id, arrival.number, arrival.number),
        )
        return (datetime.fromisoformat(at) - EPOCH).total_seconds() if at else 0.0

    def _no_mass_removal(self, arrival: Arrival) -> None:
        gone = self._removals[arrival.run_id]
        for change in arrival.changes:
            row = self.provider.held.get(change["key"])
            if change["operation"] == "removed" and row and not self._asked_to_leave(row):
                gone.add(change["key"])
        if arrival.run_id not in self._limits:
            may_hold = len(self._snapshot_keys() | self._open_keys())
            self._limits[arrival.run_id] = max(self.guard.max_removed_share * may_hold, self.guard.floor_rows)
        if len(gone) > self._limits[arrival.run_id] and not self._is_approved(arrival.run_id):
            self.blame("I9", f"{len(gone)} people removed in one run without anybody's approval")

    def note_refusals(self) -> None:
        """Whoever says no by the address they have now says no for the one they had before too."""
        for person in self.world.built.values():
            if person.blocker or {person.name, person.email} & set(self.suppressed):
                self.ever_refused.add(person.name)

    def _asked_to_leave(self, row: Mapping[str, Any]) -> bool:
        return row["person"] in self.ever_refused or bool(
            {row["person"], row["email"]} & set(self.suppressed)
        )

    def _is_approved(self, run_id: str) -> bool:
        hashes = {found for (found,) in self.journal("select content_hash from run where run_id = ?", run_id)}
        return bool(hashes & self.released)

    def before_release(self, sync: str) -> None:
        """Somebody is about to let the last plan pass. It counts from the commit on, after which they may stall."""
        last = "select content_hash from run where sync = ? order by created_at desc limit 1"
        self.released |= {found for (found,) in self.journal(last, sync) if found}

    def on_release(self, run_id: str) -> None:
        """Somebody let the plan of this run pass, as it is."""
        self.released |= {
            found for (found,) in self.journal("select content_hash from run where run_id = ?", run_id)
        }

    def on_applied(self, arrival: Arrival) -> None:
        if (
            arrival.sync == MESSAGES
            and (worst := self.provider.deliveries.most_common(1))
            and worst[0][1] > 1
        ):
            self.blame("I2", f"the message {worst[0][0]} was delivered {worst[0][1]} times")

    def on_ambiguous(self, arrival: Arrival) -> None:
        if arrival.sync == MESSAGES:
            for change in arrival.changes:
                self.ambiguous.add(self.message_key(change["fields"]["person"], change["fields"]["event"]))

    def on_wait(self, arrival: Arrival, seconds: float) -> None:
        process = self.ports.process
        if process is not None:
            self.own_waits[process.name] = max(
                self.own_waits.get(process.name, 0.0), self.ports.scheduler.now + seconds
            )

    @property
    def requests_per_second(self) -> float | None:
        return next(iter(self.project.accounts.values())).rate_limit

    @property
    def hold_up(self) -> float:
        """Seconds between a request's place and its departure."""
        stalls = self.ports.chances.stall_before_send + self.ports.chances.stall_anywhere
        return SEND_WITHIN.total_seconds() + 2 if stalls else 0.3

    @property
    def clocks_differ(self) -> float:
        """By so much at most, where there are several hosts."""
        return 2.0 if self.several_hosts else 0.0

    @property
    def is_serial(self) -> bool:
        """With several requests in flight, those that are under way when the 429 comes cannot be called back."""
        return next(iter(self.project.syncs.values())).concurrency == 1

    # -- life and death of processes ---------------------------------------------------------------------------

    def on_run(self, process: Process) -> None:
        self.run_started[process.name] = self.ports.scheduler.now
        self.own_waits.pop(process.name, None)

    def on_returned(self, process: Process, run: SyncRun) -> None:
        """A run that came back has committed what it was told."""
        until = self.own_waits.pop(process.name, 0.0)
        self.committed_waits.append(Wait(run.sync, self.ports.scheduler.now, until))
        found = run.delivered + run.rejected + run.retryable + run.in_doubt + run.suppressed
        if not run.held_reason and run.counts.planned != found and not run.error:
            self.blame("sums", f"{run.sync} planned {run.counts.planned} rows and accounts for {found}")
        self.said.append(json.dumps(run.summary(), default=str))
        self.nothing_forgotten()

    def on_death(self, process: Process) -> None:
        self.own_waits.pop(process.name, None)
        self._in_flight_is_ambiguous()

    def on_takeover(self) -> None:
        self.ports.seen["takeover"] += 1
        self._in_flight_is_ambiguous()

    def _in_flight_is_ambiguous(self) -> None:
        in_flight = self.journal("select message_key from message where state = 'in_flight'")
        self.ambiguous.update(key for (key,) in in_flight)

    def after_commit(self, store: str) -> None:
        if store == "warehouse":
            self.nothing_forgotten()

    def nothing_forgotten(self) -> None:
        """I6: whatever the mirror holds is known to the snapshot, an open row or an unmerged batch."""
        if not self.provider.held:
            return
        missing = set(self.provider.held) - self._snapshot_keys()
        if not missing:
            return
        missing -= self._open_keys() | self._unmerged_keys()
        if missing:
            people = sorted(str(self.provider.held[key]["person"]) for key in missing)
            self.blame("I6", f"the destination holds {people} and nobody here knows")

    def _snapshot_keys(self) -> set[str]:
        rows = self.ledger("select identity from activation.sync_snapshot where sync = 'people'")
        return {self._pseudonym(identity) for (identity,) in rows}

    def _open_keys(self) -> set[str]:
        rows = self.journal("select identity from open_row where sync = ? and maybe = 1", PEOPLE)
        return {self._pseudonym(identity) for (identity,) in rows}

    def _unmerged_keys(self) -> set[str]:
        batches = self.journal(
            "select r.plan_path, b.first, b.count from batch b join run r using (run_id) "
            "where b.sync = ? and b.state in ('in_flight', 'recorded')",
            PEOPLE,
        )
        keys: set[str] = set()
        for name, first, count in batches:
            path = Path(self.project.var / "plans" / name)
            if not path.exists():
                self.blame("M1", f"the plan {name} is gone while a batch of it is open")
                continue
            keys.update(self._planned_keys(path)[first : first + count])
        return keys

    def _planned_keys(self, path: Path) -> list[str]:
        if path not in self._planned:
            identities = pl.read_parquet(path, columns=["identity"])["identity"]
            self._planned[path] = [self._pseudonym(identity) for identity in identities]
        return self._planned[path]

    # -- the end -----------------------------------------------------------------------------------------------

    def final(self, *syncs: str) -> None:
        """`syncs`: those that ran."""
        if PEOPLE in syncs:
            self._audience_is_there()
        if MESSAGES in syncs:
            self._messages_are_terminal()
        self._ledger_is_the_truth()
        self._epochs_rise()
        self.nothing_forgotten()
        self._nobody_is_named()

    def _nobody_is_named(self) -> None:
        """P1: no address, name or phone number in the journal, the ledger, or anything that people were told."""
        files = [path.read_bytes() for path in self.project.var.glob("journal.sqlite3*")]
        tables = self.ledger("select table_name from duckdb_tables() where schema_name = 'activation'")
        ledger = [str(self.ledger(f"select * from activation.{name}")).encode() for (name,) in tables]
        said = [text.encode() for text in self.said]
        for place, texts in (("journal", files), ("ledger", ledger), ("messages to people", said)):
            found = [canary for canary in CANARIES if any(canary.encode() in text for text in texts)]
            if found:
                self.blame("P1", f"{found} can be read in the {place}")

    def _wanted(self) -> dict[str, dict[str, Any]]:
        return {
            name: row
            for name, row in self.world.expected_people().items()
            if not {name, row["email"]} & set(self.suppressed)
        }

    def _audience_is_there(self) -> None:
        wanted, held = self._wanted(), list(self.provider.held.values())
        owners = Counter(row["email"] for row in wanted.values())
        by_email = {row["email"]: row for row in held}
        refused = {
            k
            for (k,) in self.journal(
                "select row_key from open_row where sync = ? and state = 'rejected'", PEOPLE
            )
        }
        for name, row in wanted.items():
            has = by_email.get(row["email"])
            bad = is_bad({"operation": "added", "identifiers": {"email": row["email"]}, "fields": row})
            if bad and name not in refused and owners[row["email"]] == 1:
                self.blame("I3", f"{name} is bad and not visible as rejected")
            if not bad and has != row and not (has and owners[row["email"]] > 1 and has in wanted.values()):
                self.blame(
                    "I3", f"{name} should be {row}, the destination has {has}; rejected: {name in refused}"
                )
        for row in held:
            if wanted.get(row["person"], {}).get("email") != row["email"]:
                self.blame("I4", f"{row['person']} ({row['email']}) is still there")

    def _messages_are_terminal(self) -> None:
        found = self.journal("select message_key, state from message")
        states, wanted = dict(found), {}
        for person, event in self.world.expected_events():
            if not {person.name, person.email} & set(self.suppressed):
                wanted[person.name, event] = True
        for person in self.world.people.values():
            for event in person.events:
                self._message_is_terminal(person.name, event, states, wanted)

    def _message_is_terminal(
        self, person: str, event: str, states: Mapping[str, str], wanted: Mapping[tuple[str, str], bool]
    ) -> None:
        key, sent = self.message_key(person, event), self.provider.deliveries[person, event]
        state = states.get(key)
        allowed = {"sent": (1,), "unknown": (0, 1), "rejected": (0,), "pending": (0,), None: (0,)}
        if sent not in allowed.get(state, ()):
            self.blame("I7", f"{event} is {state} and was delivered {sent} times")
        if (person, event) in wanted and state not in ("sent", "unknown", "rejected"):
            self.blame("I7", f"{event} should have been sent, it is {state}")
        if state == "unknown" and key not in self.ambiguous:
            self.blame("I7", f"{event} is unknown though nothing ambiguous happened to it")
        if state == "rejected" and (person, event) not in self.provider.refused:
            self.blame("I3p", f"{event} is rejected though nobody refused it")

    def _ledger_is_the_truth(self) -> None:
        self._snapshot_is_the_destination()
        self._changelog_has_no_gap()
        left = self.journal(
            "select state, count(*) from batch where state in ('in_flight', 'recorded') group by 1"
        )
        left += self.journal(
            "select state, count(*) from open_row where sync = ? and state <> 'rejected' group by 1", PEOPLE
        )
        if left:
            self.blame("M1", f"the journal still holds {dict(left)}")
        if plans := sorted(path.name for path in (self.project.var / "plans").glob("*")):
            self.blame("M1", f"plans are left on disk: {plans}")

    def _snapshot_is_the_destination(self) -> None:
        keys = self._snapshot_keys()
        held = set(self.provider.held)
        if (keys ^ held) - self._open_keys():  # a row in doubt that was then rejected may be there or not
            self.blame(
                "M1", f"the snapshot has {len(keys)} rows, the destination {len(held)}, and they differ"
            )
        sent = self.journal("select count(*) from message where state = 'sent'")[0][0]
        noted = self.ledger("select count(*) from activation.sync_snapshot where sync = 'messages'")[0][0]
        if sent != noted:
            self.blame("M1", f"{sent} messages were sent, the snapshot knows {noted}")

    def _changelog_has_no_gap(self) -> None:
        lines = self.ledger("select sync, seq, position from activation.sync_changelog")
        if len(set(lines)) != len(lines):
            self.blame("M1", "the changelog counts an outcome twice")
        wanted = {
            (sync, seq, first + n)
            for sync, seq, first, count in self.journal(
                "select sync, outcome_seq, first, count from batch where outcome_seq is not null"
            )
            for n in range(count)
        }
        if wanted - set(lines):
            self.blame("M1", f"{len(wanted - set(lines))} outcomes never reached the changelog")
        if set(lines) - wanted:
            self.blame("M1", f"{len(set(lines) - wanted)} lines of the changelog have no outcome")

    def _epochs_rise(self) -> None:
        for sync in (PEOPLE, MESSAGES):
            epochs = [
                e for (e,) in self.journal("select epoch from batch where sync = ? order by batch_id", sync)
            ]
            if epochs != sorted(epochs):
                self.blame("I8", f"epochs of intents of {sync} decrease")
