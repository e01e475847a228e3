"""The engine with one protective measure taken out. Each lives here only, as a patch of the real code.

A simulation is worth what it catches: `within` is the number of seeds in which it has to notice that the measure is
gone, `by` the invariants that may do so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from multiprocessing import get_context
from typing import Any
from unittest.mock import patch

import sqlglot

from activations import ledger, parts, run
from activations.delivery import deliverer, exchange
from activations.delivery.consent import Refusals
from activations.destinations import webhook
from activations.journal import Claim, Journal
from activations.journal.postgres import PostgresStore
from activations.journal.store import Store
from activations.model import Outcome, RowResult
from activations.planning import planner
from activations.planning.comparison import Comparison
from tests.simulation import shortcuts
from tests.simulation.campaign import attempt
from tests.simulation.provider import MESSAGES
from tests.simulation.stage import Result

Switch = Callable[[], AbstractContextManager[Any]]


@dataclass(frozen=True, slots=True)
class Ablation:
    """A measure that can be switched off."""

    name: str
    off: Switch
    by: frozenset[str]
    within: int | None
    """Seeds; None: the simulation is known not to catch it, and docs/proof.md says why."""


def _patched(target: Any, name: str, value: Any) -> Switch:
    return lambda: patch.object(target, name, value)


# -- journal -------------------------------------------------------------------------------------------------------


def _rewritten(method: str, *changes: tuple[str, str]) -> Switch:
    """The journal with some of its SQL replaced."""

    @contextmanager
    def off() -> Iterator[None]:
        real = getattr(Journal, method)

        def changed(self: Journal, *arguments: Any, **options: Any) -> Any:
            store = self._store
            self._store = _Rewriting(store, changes)  # type: ignore[assignment]
            try:
                return real(self, *arguments, **options)
            finally:
                self._store = store

        with patch.object(Journal, method, changed):
            yield

    return off


class _Rewriting:
    """A journal's store that is told something else in some statements."""

    def __init__(self, store: Store, changes: tuple[tuple[str, str], ...]) -> None:
        self._store, self._changes = store, changes

    def run(self, statement: str, *parameters: Any) -> int:
        for old, new in self._changes:
            assert old in statement
            statement = statement.replace(old, new)
        return self._store.run(statement, *parameters)


@contextmanager
def _no_intent() -> Iterator[None]:
    """The intent is written together with the outcome, after the request."""
    real_claim, real_record, real_release = Journal.claim, Journal.record, Journal.release
    real_delivered = Journal.record_delivered
    late: dict[int, Callable[[], Any]] = {}

    def claim(self: Journal, lease: Any, run_id: str, span: Any, **options: Any) -> Any:
        number = -1 - len(late)
        late[number] = lambda: real_claim(self, lease, run_id, span, **options)
        return Claim(batch_id=number, span=span, send_by=options["send_by"], refused={})

    def record(self: Journal, lease: Any, claim: Any, outcomes: Any, **options: Any) -> None:
        real_record(self, lease, late[claim.batch_id](), outcomes, **options)

    def delivered(self: Journal, lease: Any, claim: Any, **options: Any) -> None:
        real_delivered(self, lease, late[claim.batch_id](), **options)

    def release(self: Journal, lease: Any, claim: Any, messages: Any) -> None:
        real_release(self, lease, late[claim.batch_id](), messages)

    with (
        patch.object(Journal, "claim", claim),
        patch.object(Journal, "record", record),
        patch.object(Journal, "record_delivered", delivered),
        patch.object(Journal, "release", release),
    ):
        yield


def _settle_at_once(self: Journal, sync: str, row_key: str, identity: str, *_: Any) -> None:
    self._store.run(
        "delete from open_row where sync = ? and row_key = ? and identity = ?", sync, row_key, identity
    )


# -- the destination's answers -------------------------------------------------------------------------------------


@contextmanager
def _ambiguous_is_retried() -> Iterator[None]:
    """What an HTTP library with `retries=3` does."""
    real = exchange.Conversation._all

    def retried(self: Any, batch: Any, outcome: Outcome, reason: str, **options: Any) -> Any:
        is_message = (
            batch.sync == MESSAGES
        )  # repeating state is harmless, and would be noticed for other reasons
        return real(self, batch, Outcome.RETRYABLE if is_message else outcome, reason, **options)

    with patch.object(exchange.Conversation, "_all", retried):
        yield


@contextmanager
def _every_200_is_a_yes() -> Iterator[None]:
    def results(batch: Any, _body: Any) -> list[RowResult]:
        return [webhook.delivered(change, webhook._key(change)) for change in batch.changes]

    with patch.object(webhook, "_results", results), patch.object(webhook, "json_object", lambda _: {}):
        yield


@contextmanager
def _no_bisecting() -> Iterator[None]:
    """A batch that was refused is a batch of bad rows."""
    real = deliverer.Deliverer._attempt

    def attempt_once(self: Any, rows: Any, claim: Any) -> Any:
        return real(self, rows, claim) or deliverer._rejected(rows, "batch_refused")

    with patch.object(deliverer.Deliverer, "_attempt", attempt_once):
        yield


# -- planning and merging ------------------------------------------------------------------------------------------


@contextmanager
def _no_overlay() -> Iterator[None]:
    real = parts._open_rows

    def none(journal: Any, sync: Any, now: datetime) -> Any:
        return real(journal, sync, now).slice(0, 0)

    with patch.object(parts, "_open_rows", none):
        yield


@contextmanager
def _rejected_stay() -> Iterator[None]:
    """REJECTED is final, whoever leaves."""
    real = Comparison.known

    def known(self: Comparison, held: Any) -> Any:
        query = real(self, held).sql(dialect="duckdb")
        return sqlglot.parse_one(
            f"select * exclude (may_hold), may_hold and coalesce(state, '') <> 'rejected' as may_hold from ({query}) as q",
            dialect="duckdb",
        )

    with patch.object(Comparison, "known", known):
        yield


@contextmanager
def _prune_first() -> Iterator[None]:
    """The journal forgets before the warehouse knows."""
    real = ledger.merge

    def merge(session: Any, journal: Journal, lease: Any, sync: Any, plans: Any) -> int:
        batches = journal.unmerged(sync.name)
        journal.merged(lease, max((b.outcome_seq or 0 for b in batches), default=0), [])
        return real(session, _Forgetful(journal, batches), lease, sync, plans)  # type: ignore[arg-type]

    with patch.object(ledger, "merge", merge):
        yield


class _Forgetful:
    """A journal that has pruned already; what it had is handed on by hand."""

    def __init__(self, journal: Journal, batches: Any) -> None:
        self._journal, self._batches = journal, batches

    def __getattr__(self, name: str) -> Any:
        return getattr(self._journal, name)

    def unmerged(self, _sync: str) -> Any:
        return self._batches

    def merged(self, *_: Any) -> None:
        """Done before."""


@contextmanager
def _no_fence() -> Iterator[None]:
    """A host that lost its lease is told that it still has it."""
    real = PostgresStore.renew

    def renew(self: PostgresStore, sync: str, epoch: int) -> bool:
        real(self, sync, epoch)
        return True

    with patch.object(PostgresStore, "renew", renew):
        yield


@contextmanager
def _rate_of_a_process() -> Iterator[None]:
    """Every run takes its places from a book of its own."""
    books: dict[int, datetime] = {}

    def reserve(self: Journal, _account: str, requests: int, interval: float) -> datetime:
        first = max(filter(None, (self._now(), books.get(id(self)))))
        books[id(self)] = first + timedelta(seconds=requests * interval)
        return first

    with patch.object(Journal, "reserve", reserve):
        yield


ABLATIONS = (
    Ablation("write-ahead intent", _no_intent, frozenset({"I6", "I2", "I7"}), 5),
    Ablation("HTTP 200 is not acceptance", _every_200_is_a_yes, frozenset({"I7", "I3", "I3p", "M1", "I4"}), 10),
    Ablation("bisecting", _no_bisecting, frozenset({"I3", "I3p"}), 20),
    Ablation("ambiguous messages are never repeated", _ambiguous_is_retried, frozenset({"I2"}), 20),
    Ablation("suppression is read again with the intent", _patched(Journal, "_suppressed", lambda *_: {}), frozenset({"I1"}), 20),
    Ablation("send deadline", _patched(deliverer, "SEND_WITHIN", timedelta(days=1)), frozenset({"I1"}), 60),
    Ablation("settle re-assertion", _patched(Journal, "_settle", _settle_at_once), frozenset({"I6", "I4", "I3", "M1"}), 400),
    Ablation("plan with the journal's overlay", _no_overlay, frozenset({"I3", "I4", "M1", "I6", "I2", "I7"}), 10),
    Ablation("a rejected row is reopened for its removal", _rejected_stay, frozenset({"I4"}), 100),
    Ablation(
        "a rejection keeps `maybe`",
        _rewritten("_open", ("maybe = case when open_row.maybe = 1 then 1 else excluded.maybe end", "maybe = excluded.maybe")),
        frozenset({"I6", "I4", "M1"}),
        200,
    ),
    Ablation("merge obeys the mark", _patched(ledger, "_after", lambda _mark, batches: list(batches)), frozenset({"M1"}), 20),
    Ablation("prune after the merge", _prune_first, frozenset({"M1", "I6", "I7"}), 100),
    Ablation("Retry-After is committed", _patched(Journal, "postpone", lambda *_: None), frozenset({"I10"}), 100),
    Ablation("suppressions that are new since the plan", _patched(Refusals, "_has_news", lambda *_: False), frozenset({"I1"}), 20),
    Ablation("fence", _no_fence, frozenset({"I8", "I1", "I2", "I10"}), 60),
    Ablation("the rate is the account's", _rate_of_a_process, frozenset({"I10"}), 200),
    Ablation("mass-change guard", _patched(planner, "held_because", lambda *_, **__: None), frozenset({"I9"}), 60),
    Ablation("a lost batch is in doubt", _patched(run, "recover", lambda *_: None), frozenset({"I7", "M1", "I6", "L1", "I3"}), 20),
)  # fmt: skip


def caught_by(ablation: Ablation, seeds: range) -> tuple[int, str] | None:
    """(how many seeds it took, what was seen), or None. The same seed with the measure in place has to be clean."""
    for count, seed in enumerate(seeds, 1):
        result = _without(ablation, seed)
        if (found := result.invariants & ablation.by) and not attempt(seed).violations:
            first = next(v for v in result.violations if v.partition(":")[0] in found)
            return count, f"seed {seed}: {first}"
    return None


def _without(ablation: Ablation, seed: int) -> Result:
    shortcuts.forget()
    try:
        with ablation.off():
            return attempt(seed)
    finally:
        shortcuts.forget()


def _scored(given: tuple[int, int]) -> str | None:
    number, seeds = given
    caught = caught_by(ABLATIONS[number], range(seeds))
    return f"{caught[0]} seeds, {caught[1]}" if caught else None


def score(seeds: int, *, workers: int) -> Iterator[tuple[Ablation, str | None]]:
    if workers == 1:
        yield from ((ablation, _scored((n, seeds))) for n, ablation in enumerate(ABLATIONS))
        return
    with get_context("spawn").Pool(workers) as pool:
        jobs = [(number, seeds) for number in range(len(ABLATIONS))]
        yield from zip(ABLATIONS, pool.imap(_scored, jobs), strict=True)
