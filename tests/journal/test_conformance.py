"""What the engine relies on, on SQLite and on Postgres."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from activations.errors import (
    ActivationsError,
    Fenced,
    SecretError,
    SyncBusy,
)
from activations.journal import Journal, Lease, OpenState, RowOutcome, Span
from activations.model import Outcome, SyncRun
from tests.journal.conftest import (
    ACCOUNT,
    BY,
    RUN,
    SYNC,
    Journals,
    claimed,
    later,
    outcome,
    recorded,
    save_run,
)

DELIVERED, REJECTED, UNKNOWN = Outcome.DELIVERED, Outcome.REJECTED, Outcome.UNKNOWN

# -- lease and fence ---------------------------------------------------------------------------------------------------


def test_two_engines_never_hold_one_sync(journals: Journals, lease: Lease) -> None:
    with pytest.raises(SyncBusy, match="another process is running the sync `people`"):
        journals.open().lease(SYNC, "host:2").__enter__()
    with journals.open().lease("another", "host:2") as other:
        assert other.epoch == 1


def test_a_lease_is_free_when_its_block_ends_also_by_an_error(journals: Journals) -> None:
    journal = journals.open()
    with suppress(KeyboardInterrupt), journal.lease(SYNC, "host:1"):
        raise KeyboardInterrupt
    with journals.open().lease(SYNC, "host:2") as next_one:
        assert (next_one.epoch, next_one.owner) == (2, "host:2")


def test_an_old_epoch_writes_nothing(journals: Journals) -> None:
    journal = journals.open()
    with journal.lease(SYNC, "host:1") as old:
        save_run(journal, old)
        claim = claimed(journal, old)
    with journals.open().lease(SYNC, "host:2") as new:
        for write in (
            lambda: claimed(journal, old),
            lambda: journal.release(old, claim, {}),
            lambda: journal.renew(
                old, claim, send_by=datetime(2026, 1, 7), channel="email", refuses=lambda _: []
            ),
            lambda: journal.record(
                old, claim, [], messages={}, settle_seconds=0, sent_at=datetime(2026, 1, 5)
            ),
            lambda: journal.record_delivered(old, claim, rows=2, keys=list, sent_at=datetime(2026, 1, 5)),
            lambda: journal.record_lost(old, journal.in_flight(SYNC)[0], [], {}, 0),
            lambda: journal.merged(old, 1, [RUN]),
            lambda: journal.plans_in_use(old),
            lambda: journal.postpone(old, ACCOUNT, datetime(2027, 1, 1)),
            lambda: journal.forget(old, **BY),
            lambda: journal.forget_rejected(old, []),
            lambda: journal.retry_rejected(old, **BY),
            lambda: journal.confirm(old, {"a": "SM1"}),
            lambda: journal.use_approval(old, "hash", RUN),
            lambda: save_run(journal, old),
        ):
            with pytest.raises(Fenced, match="a newer engine took over the sync `people`"):
                write()
        assert [batch.batch_id for batch in journal.in_flight(SYNC)] == [claim.batch_id]
        assert journal.not_before(ACCOUNT) is None
        save_run(journal, new)


def test_a_batch_says_who_sent_it(journal: Journal, lease: Lease) -> None:
    claimed(journal, lease)
    [batch] = journal.in_flight(SYNC)
    assert (batch.owner, batch.plan_path) == ("host:1", f"{RUN}.parquet")


def test_another_hashing_key_is_refused(journals: Journals) -> None:
    first = journals.open()
    with pytest.raises(SecretError, match=r"hash\.key: .* hosts that share a journal need the same"):
        journals.open(key_check="another")
    assert journals.open().journal_id == first.journal_id


# -- intents -----------------------------------------------------------------------------------------------------------


def test_an_intent_is_there_for_whoever_comes_next(journals: Journals, lease: Lease) -> None:
    claim = claimed(journals.open(), lease, first=4, count=3)
    [found] = journals.open().in_flight(SYNC)
    assert (found.batch_id, found.span.first, found.span.count) == (claim.batch_id, 4, 3)


def test_a_message_goes_through_its_door_once(journal: Journal, lease: Lease) -> None:
    first = claimed(journal, lease, messages={0: "a", 1: "b"})
    assert first.refused == {}
    second = claimed(journal, lease, messages={0: "a", 1: "c"})
    assert second.refused == {0: (UNKNOWN, "in_doubt_before")}


def test_a_message_twice_in_one_batch_goes_once(journal: Journal, lease: Lease) -> None:
    assert claimed(journal, lease, messages={0: "a", 1: "a"}).refused == {1: (UNKNOWN, "in_doubt_before")}


def test_only_what_provably_was_not_accepted_may_be_claimed_again(journal: Journal, lease: Lease) -> None:
    found = [DELIVERED, REJECTED, UNKNOWN, Outcome.RETRYABLE]
    messages = dict(enumerate("abcd"))
    recorded(journal, lease, *(outcome(n, o) for n, o in enumerate(found)), messages=messages)
    assert claimed(journal, lease, count=4, messages=messages).refused == {
        0: (DELIVERED, "sent_before"),
        1: (REJECTED, "rejected_before"),
        2: (UNKNOWN, "in_doubt_before"),
    }


def test_a_claim_that_was_released_opens_its_doors_again(journal: Journal, lease: Lease) -> None:
    claim = claimed(journal, lease, messages={0: "a"})
    journal.release(lease, claim, {0: "a"})
    assert journal.in_flight(SYNC) == []
    assert claimed(journal, lease, messages={0: "a"}).refused == {}


def test_a_door_that_an_outcome_closed_is_not_opened_by_a_late_release(
    journal: Journal, lease: Lease
) -> None:
    claim = recorded(journal, lease, outcome(0, UNKNOWN), messages={0: "a"})
    journal.release(lease, claim, {0: "a"})
    assert claimed(journal, lease, messages={0: "a"}).refused == {0: (UNKNOWN, "in_doubt_before")}
    assert len(journal.unmerged(SYNC)) == 1


def test_many_messages_pass_in_one_claim(journal: Journal, lease: Lease) -> None:
    """More than fit into one statement."""
    messages = {n: f"m{n}" for n in range(2_500)}
    assert claimed(journal, lease, count=2_500, messages=messages).refused == {}
    assert len(claimed(journal, lease, count=2_500, messages=messages).refused) == 2_500


# -- consent -----------------------------------------------------------------------------------------------------------


def test_who_said_no_meanwhile_is_refused_with_the_intent(journals: Journals, lease: Lease) -> None:
    sender, asked = journals.open(), []

    def refuses(said_no: frozenset[str]) -> list[int]:
        asked.append(said_no)
        return [1]

    assert claimed(sender, lease, refuses=refuses).refused == {}
    journals.open().suppress({"d1": ["d1"]}, channel="email", reason="stop", source="test")
    claim = claimed(sender, lease, refuses=refuses, messages={0: "a", 1: "b"})
    assert claim.refused == {1: (Outcome.SUPPRESSED, "suppressed")}
    assert asked == [frozenset({"d1"})]
    [_, batch] = sender.in_flight(SYNC)
    assert batch.exceptions == [(1, Outcome.SUPPRESSED, "suppressed")]
    journals.open().lift(["d1"], channel="email", reason="mistake", source="test")
    assert claimed(sender, lease, refuses=refuses, messages={1: "b"}).refused == {}, "its door stayed open"


def test_a_no_is_effective_once_what_was_claimed_before_cannot_leave_any_more(
    journals: Journals, lease: Lease
) -> None:
    sender, other = journals.open(), journals.open()

    def effective_after() -> float:
        said = journals.clock.moment
        effective_at = other.suppress({"d": ["d"]}, channel="email", reason="stop", source="test")
        return (effective_at - said).total_seconds()

    assert effective_after() < 0.1, "nothing is under way"
    claim = claimed(sender, lease, send_by=later(journals, 8))
    assert effective_after() == pytest.approx(8 + 2, abs=0.1)
    sender.release(lease, claim, {})
    assert effective_after() < 0.1
    claimed(sender, lease, send_by=later(journals, 8))
    journals.clock.sleep(60)
    assert effective_after() < 0.1, "what a dead engine had claimed does not leave any more"


def test_the_digests_are_read_again_only_when_somebody_said_no(journals: Journals) -> None:
    reader, other = journals.open(), journals.open()
    other.suppress({"a": ["a"]}, channel="email", reason="stop", source="test")
    before = reader.suppressed_digests("email")
    assert reader.suppressed_digests("email") is before
    other.suppress({"b": ["b"]}, channel="all", reason="stop", source="test")
    other.suppress({"c": ["c"]}, channel="sms", reason="stop", source="test")
    assert reader.suppressed_digests("email") == {"a", "b"}
    assert other.lift(["a", "z"], channel="email", reason="mistake", source="test") == 1
    assert reader.suppressed_digests("email") == {"b"}


# -- outcomes ----------------------------------------------------------------------------------------------------------


def test_a_batch_that_was_delivered_whole_is_one_line(journal: Journal, lease: Lease) -> None:
    def keys() -> list[tuple[str, str, str | None]]:
        raise AssertionError("nothing is open, so nobody needs the rows")

    journal.record_delivered(
        lease, claimed(journal, lease, count=1000), rows=1000, keys=keys, sent_at=datetime(2026, 1, 5)
    )
    [batch] = journal.unmerged(SYNC)
    assert (batch.outcome_seq, batch.exceptions, batch.destination_keys) == (1, [], None)
    assert journal.outcomes_of(RUN) == {DELIVERED: 1000}


def test_a_whole_batch_settles_the_rows_of_it_that_were_open(journals: Journals, lease: Lease) -> None:
    journal = journals.open()
    recorded(journal, lease, outcome(0, UNKNOWN), outcome(1, REJECTED), outcome(2, REJECTED))
    keys = [("p0", "i0", "h2"), ("p1", "i1", "h2"), ("p9", "i9", "h2")]
    journal.record_delivered(
        lease, claimed(journal, lease), rows=3, keys=lambda: keys, sent_at=later(journals, 60)
    )
    found = {row.row_key: (row.state, row.payload_hash) for row in journal.open_rows(SYNC)}
    assert found == {"p0": (OpenState.SETTLING, "h2"), "p2": (OpenState.REJECTED, "h1")}


def test_a_row_in_doubt_is_settled_by_what_left_after_its_window(journals: Journals, lease: Lease) -> None:
    journal = journals.open()
    recorded(journal, lease, outcome(0, UNKNOWN), settle_seconds=60)
    recorded(journal, lease, outcome(0, DELIVERED), sent_at=later(journals, 30))
    assert [row.state for row in journal.open_rows(SYNC)] == [OpenState.SETTLING]
    recorded(journal, lease, outcome(0, DELIVERED), sent_at=later(journals, 61))
    assert journal.open_rows(SYNC) == []


def test_a_rejection_does_not_forget_what_the_destination_may_hold(journal: Journal, lease: Lease) -> None:
    recorded(journal, lease, outcome(0, UNKNOWN, sealed=b"\x00s", destination_key="k"))
    recorded(journal, lease, outcome(0, REJECTED, reason="bad"))
    [row] = journal.open_rows(SYNC)
    assert (row.state, row.maybe, row.sealed, row.destination_key, row.reason) == (
        OpenState.REJECTED,
        True,
        b"\x00s",
        "k",
        "bad",
    )
    journal.forget_rejected(lease, [("p0", "i0")])
    assert len(journal.open_rows(SYNC)) == 1


def test_a_lost_batch_is_in_doubt(journals: Journals, lease: Lease) -> None:
    journal = journals.open()
    claimed(journal, lease, messages={0: "a"})
    [batch] = journal.in_flight(SYNC)
    journal.record_lost(lease, batch, [outcome(0, UNKNOWN)], {0: "a"}, 60)
    assert journal.in_flight(SYNC) == []
    assert claimed(journal, lease, messages={0: "a"}).refused == {0: (UNKNOWN, "in_doubt_before")}


def test_outcomes_are_numbered_without_gap_or_repetition(journals: Journals) -> None:
    """Four syncs at once, each with a connection of its own, and transactions that fail in between."""

    def work(number: int) -> None:
        journal = journals.open()
        with journal.lease(f"sync_{number}", "host:1") as lease:
            save_run(journal, lease, f"run-{number}")
            for _ in range(10):
                claim = claimed(journal, lease, run_id=f"run-{number}")
                with suppress(ZeroDivisionError):
                    fail_inside(journal, lease)
                journal.record_delivered(lease, claim, rows=2, keys=list, sent_at=datetime(2026, 1, 5))

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, range(4)))
    journal = journals.open()
    per_sync = [[b.outcome_seq or 0 for b in journal.unmerged(f"sync_{n}")] for n in range(4)]
    assert sorted(seq for seqs in per_sync for seq in seqs) == list(range(1, 41))
    assert all(seqs == sorted(seqs) for seqs in per_sync)


def fail_inside(journal: Journal, lease: Lease) -> None:
    """A number was drawn, and the transaction ends in an error."""
    with journal._fenced(lease):
        journal._next("outcome")
        raise ZeroDivisionError


# -- merge -------------------------------------------------------------------------------------------------------------


def test_what_the_ledger_has_is_dropped_here(journal: Journal, lease: Lease) -> None:
    recorded(journal, lease, outcome(0, DELIVERED, destination_key="k0"), outcome(1, REJECTED, reason="bad"))
    recorded(journal, lease, outcome(2, DELIVERED))
    first, second = journal.unmerged(SYNC)
    assert first.destination_keys == ["k0", None]
    assert list(first.exceptions) == [(1, REJECTED, "bad")]
    assert journal.plans_in_use(lease) == {f"{RUN}.parquet"}
    journal.merged(lease, first.outcome_seq or 0, [])
    assert journal.unmerged(SYNC) == [second]
    assert (journal.merged_through(SYNC), journal.position(SYNC)) == (1, 2)
    journal.merged(lease, 2, [])
    assert (journal.unmerged(SYNC), journal.plans_in_use(lease)) == ([], set())
    assert journal.outcomes_of(RUN) == {DELIVERED: 2, REJECTED: 1}, "the tally stays"


def test_forgetting_keeps_the_doors_shut(journal: Journal, lease: Lease) -> None:
    """And in sight: who is waited for can still be resolved, also what was in flight when an engine died."""
    recorded(journal, lease, outcome(0, UNKNOWN), messages={0: "a"})
    recorded(journal, lease, outcome(1, UNKNOWN))
    claimed(journal, lease, messages={2: "c"})
    journal.forget(lease, **BY)
    assert [row.row_key for row in journal.open_rows(SYNC)] == ["p0"]
    assert (journal.unmerged(SYNC), journal.in_flight(SYNC)) == ([], [])
    assert [message.handle for message in journal.messages_in_doubt(SYNC)] == ["a", "c"]
    closed = claimed(journal, lease, messages={0: "a", 2: "c"}).refused
    assert closed == dict.fromkeys((0, 2), (UNKNOWN, "in_doubt_before"))


# -- runs --------------------------------------------------------------------------------------------------------------


def test_a_run_is_unfinished_until_it_says_otherwise(journal: Journal, lease: Lease) -> None:
    assert [run["run_id"] for run in journal.unfinished_runs(SYNC)] == [RUN]
    assert journal.run_ids(SYNC) == {RUN}
    assert journal.last_runs()[SYNC]["run_status"] == "running"
    assert journal.runs_for_ledger(SYNC) == []
    assert journal.held_plan(SYNC) is None


def test_a_finished_run_is_for_the_ledger_until_that_has_it(journal: Journal, lease: Lease) -> None:
    [summary] = journal.unfinished_runs(SYNC)
    finished = replace(SyncRun.from_summary(summary), finished_at=datetime(2026, 1, 6))
    journal.save_run(lease, finished)
    assert [run["run_id"] for run in journal.runs_for_ledger(SYNC)] == [RUN]
    journal.merged(lease, 0, [RUN])
    assert journal.runs_for_ledger(SYNC) == []
    journal.save_run(lease, finished)
    assert [run["run_id"] for run in journal.runs_for_ledger(SYNC)] == [RUN], "it was said anew"
    journal.save_run(lease, finished, in_ledger=True)
    assert journal.runs_for_ledger(SYNC) == []


def test_an_approval_is_for_one_plan_once_and_for_a_time(journals: Journals, lease: Lease) -> None:
    journal = journals.open()
    for plan in ("used", "late"):
        journal.approve(SYNC, plan, valid=timedelta(hours=1), **BY)
        assert journal.approved(SYNC) == {plan}
        if plan == "used":
            journal.use_approval(lease, plan, RUN)
            assert journal.approved(SYNC) == frozenset()
    journals.clock.sleep(3600)
    assert journal.approved(SYNC) == frozenset()


# -- accounts ----------------------------------------------------------------------------------------------------------


def test_the_longer_wait_wins(journals: Journals, lease: Lease) -> None:
    journal = journals.open()
    long, short = later(journals, 90), later(journals, 2)
    for until in (short, long, short):
        journal.postpone(lease, ACCOUNT, until)
    assert journals.open().not_before(ACCOUNT) == long
    assert journal.not_before("another") is None


def test_nothing_is_claimed_before_the_account_wants_to_be_called(journals: Journals, lease: Lease) -> None:
    journal, until = journals.open(), later(journals, 90)
    span = Span(first=0, count=1)
    given: dict[str, Any] = {"channel": "email", "refuses": lambda _: [], "messages": {0: "a"}}
    journals.open().postpone(lease, ACCOUNT, until)
    assert journal.claim(lease, RUN, span, send_by=until, account=ACCOUNT, **given) is None
    assert journal.in_flight(SYNC) == []
    assert claimed(journal, lease, account="another").refused == {}
    journals.clock.sleep(90)
    assert claimed(journal, lease, messages={0: "a"}).refused == {}, "its door stayed open"


def test_nobody_gets_a_place_before_the_account_wants_to_be_called(journals: Journals, lease: Lease) -> None:
    journal, until = journals.open(), later(journals, 90)
    journal.postpone(lease, ACCOUNT, until)
    assert journal.reserve(ACCOUNT, 2, 0.5) == until
    assert journal.reserve(ACCOUNT, 1, 0.5) == until + timedelta(seconds=1)


def test_an_account_that_was_idle_gives_no_places_of_the_past(journals: Journals) -> None:
    journal = journals.open()
    journal.reserve(ACCOUNT, 1, 0.1)
    journals.clock.sleep(3600)
    before = journals.clock.moment
    assert journal.reserve(ACCOUNT, 1, 0.1) > before


def test_a_clock_that_was_set_back_makes_nobody_wait_for_the_future(journals: Journals) -> None:
    journal = journals.open()
    journal.reserve(ACCOUNT, 1, 0.1)
    journals.clock.sleep(-3600)
    before = journals.clock.moment
    assert journal.reserve(ACCOUNT, 1, 0.1) <= before + timedelta(seconds=1)


def test_a_rate_is_never_exceeded_by_several_processes(journals: Journals) -> None:
    taken: list[datetime] = []

    def work(requests: int) -> None:
        journal = journals.open()
        for _ in range(10):
            first = journal.reserve(ACCOUNT, requests, 0.25)
            taken.extend(first + timedelta(seconds=0.25 * n) for n in range(requests))

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, (1, 2, 3, 4)))
    places = sorted(taken)
    assert len(places) == 100
    assert all(b - a >= timedelta(seconds=0.25) for a, b in pairwise(places))


# -- a person decides --------------------------------------------------------------------------------------------------


def test_refused_rows_are_tried_again_on_request(journal: Journal, lease: Lease) -> None:
    recorded(journal, lease, outcome(0, REJECTED), outcome(1, UNKNOWN))
    assert journal.retry_rejected(lease, **BY) == 1
    assert {(r.row_key, r.payload_hash) for r in journal.open_rows(SYNC)} == {("p0", None), ("p1", "h1")}
    assert journal.verify_audit() == 1


def test_refused_messages_are_tried_again_and_those_in_doubt_are_not(journal: Journal, lease: Lease) -> None:
    messages = {0: "a", 1: "b"}
    recorded(journal, lease, outcome(0, REJECTED), outcome(1, UNKNOWN), messages=messages)
    assert journal.retry_rejected(lease, **BY) == 1
    assert [row.row_key for row in journal.open_rows(SYNC)] == ["p1"]
    assert claimed(journal, lease, messages=messages).refused == {1: (UNKNOWN, "in_doubt_before")}


def in_doubt(journal: Journal, lease: Lease, *keys: str) -> None:
    rows: list[RowOutcome] = [outcome(n, UNKNOWN, reason="timeout") for n, _ in enumerate(keys)]
    recorded(journal, lease, *rows, messages=dict(enumerate(keys)))


def test_messages_in_doubt_are_listed_without_naming_anybody(journal: Journal, lease: Lease) -> None:
    in_doubt(journal, lease, "0123456789abcdef")
    [message] = journal.messages_in_doubt(SYNC)
    assert (message.handle, message.reason, message.run_id) == ("0123456789ab", "timeout", RUN)


def test_a_message_that_arrived_is_never_sent_again(journal: Journal, lease: Lease) -> None:
    in_doubt(journal, lease, "a" * 64, "b" * 64)
    journal.mark_delivered(lease, "a" * 12, **BY)
    assert [row.row_key for row in journal.open_rows(SYNC)] == ["p1"]
    assert [message.handle for message in journal.messages_in_doubt(SYNC)] == ["b" * 12]
    assert claimed(journal, lease, messages={0: "a" * 64}).refused == {0: (DELIVERED, "sent_before")}
    assert journal.verify_audit() == 1


def test_a_message_that_the_provider_took_is_never_sent_again(journal: Journal, lease: Lease) -> None:
    in_doubt(journal, lease, "a" * 64, "b" * 64)
    found = {row.row_key: row for row in journal.rows_in_doubt(SYNC)}
    assert (found["p0"].message_key, found["p0"].run_id, found["p0"].identity) == ("a" * 64, RUN, "i0")
    journal.confirm(lease, {"a" * 64: "SM1"})
    assert [row.row_key for row in journal.rows_in_doubt(SYNC)] == ["p1"]
    assert [row.row_key for row in journal.open_rows(SYNC)] == ["p1"]
    assert claimed(journal, lease, messages={0: "a" * 64}).refused == {0: (DELIVERED, "sent_before")}
    assert journal.verify_audit() == 1


def test_a_message_is_sent_anew_only_when_two_people_say_so(journal: Journal, lease: Lease) -> None:
    key = "a" * 64
    in_doubt(journal, lease, key)
    with pytest.raises(ActivationsError, match="Name a second person"):
        journal.resend_as_new(lease, key[:12], second=" Ann", **BY)
    for _ in range(2):  # and the second one may be lost too
        journal.resend_as_new(lease, key[:12], second="bob", **BY)
        assert (journal.messages_in_doubt(SYNC), journal.open_rows(SYNC)) == ([], [])
        recorded(journal, lease, outcome(0, UNKNOWN), messages={0: key})
    assert len(journal.messages_in_doubt(SYNC)) == 1
    assert journal.verify_audit() == 2


@pytest.mark.parametrize("handle", ["", "c", "a"])
def test_a_handle_names_exactly_one_message(journal: Journal, lease: Lease, handle: str) -> None:
    in_doubt(journal, lease, "a1", "a2")
    with pytest.raises(ActivationsError, match="activations resolve people"):
        journal.mark_delivered(lease, handle, **BY)
    assert journal.verify_audit() == 0


# -- audit -------------------------------------------------------------------------------------------------------------


def test_the_trail_is_one_chain_whoever_writes_it(journals: Journals) -> None:
    def work(_: int) -> None:
        journal = journals.open()
        for _ in range(5):
            journal.suppress({"d": ["d"]}, channel="all", reason="stop", source="test")

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, range(4)))
    assert journals.open().verify_audit() == 20


@pytest.mark.parametrize(
    "damage",
    [
        "update audit set event = replace(event, 'stop', 'go') where seq = 2",
        "delete from audit where seq = 2",
        "update audit set seq = 9 where seq = 1",
    ],
)
def test_an_altered_trail_is_noticed(journal: Journal, damage: str) -> None:
    for _ in range(3):
        journal.suppress({"d": ["d"]}, channel="all", reason="stop", source="test")
    journal._store.run(damage)
    with pytest.raises(ActivationsError, match="was altered"):
        journal.verify_audit()


# -- one connection, several threads -----------------------------------------------------------------------------------


def test_workers_of_one_run_share_a_connection(journal: Journal, lease: Lease) -> None:
    barrier = threading.Barrier(4)

    def work(number: int) -> None:
        barrier.wait()
        for n in range(10):
            recorded(
                journal,
                lease,
                outcome(number * 100 + n, UNKNOWN),
                messages={number * 100 + n: f"{number}-{n}"},
            )

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, range(4)))
    assert [batch.outcome_seq for batch in journal.unmerged(SYNC)] == list(range(1, 41))
    assert len(journal.open_rows(SYNC)) == 40
