"""What a sync promises, through the real engine, warehouse and journal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random
from string import ascii_lowercase

import pytest

from activations.config import FieldMapping, OnNull
from activations.destinations.webhook import SignedWebhook
from activations.errors import ActivationsError, PlanRejected
from activations.model import Operation, Outcome, RunStatus
from activations.planning.statements import LONGEST_KEY
from tests.engine.world import (
    World,
    cannot_connect,
    garbled,
    lost_after,
    lost_before,
    refuse_batch_with,
    refuse_rows,
    status,
)


def test_second_run_sends_nothing(world: World) -> None:
    first = world.add("a", "b", "c").run()
    assert (first.delivered, first.counts.added, first.run_status) == (3, 3, RunStatus.SUCCEEDED)
    requests = world.other.requests
    second = world.run()
    assert (second.counts.planned, second.counts.unchanged) == (0, 3)
    assert world.other.requests == requests
    assert second.run_status is RunStatus.SUCCEEDED


def test_changed_value_is_sent_alone(world: World) -> None:
    world.add("a", "b").run()
    run = world.set("a", score=9).run()
    assert (run.counts.changed, run.counts.added, run.delivered) == (1, 0, 1)
    assert {row["score"] for row in world.other.held.values()} == {9, 1}


def test_a_value_that_becomes_null_counts_as_changed(world: World) -> None:
    world.add("a", "b").run()
    assert world.set("a", score=None).run().counts.changed == 1
    assert world.set("a", score=3).run().counts.changed == 1


def test_leavers_are_removed_from_a_mirror(world: World) -> None:
    world.add("a", "b").run()
    run = world.drop("a").run()
    assert (run.counts.removed, run.delivered) == (1, 1)
    assert world.other.emails == {"b@example.com"}


def test_upsert_never_removes(make_world: Callable[..., World]) -> None:
    world = make_world(mode="upsert")
    world.add("a", "b").run()
    assert world.drop("a").run().counts.removed == 0
    assert world.other.emails == {"a@example.com", "b@example.com"}


def test_lost_eligibility_is_a_removal(world: World) -> None:
    world.add("a", "b").run()
    run = world.block("a", "consent").run()
    assert (run.counts.ineligible, run.counts.removed) == (1, 1)
    assert dict(run.counts.ineligible_by_reason) == {"consent": 1}
    assert world.other.emails == {"b@example.com"}


def test_unknown_eligibility_is_no(world: World) -> None:
    world.add("a")
    world.eligible.clear()
    run = world.run()
    assert dict(run.counts.ineligible_by_reason) == {"unknown": 1}
    assert world.other.requests == 0


def test_held_out_people_are_not_sent(make_world: Callable[..., World]) -> None:
    world = make_world(holdout="control")
    world.held_out = {"a"}
    run = world.add("a", "b").run()
    assert (run.counts.held_out, run.delivered) == (1, 1)


def test_changed_identifier_is_a_removal_and_an_addition(world: World) -> None:
    world.add("a").run()
    run = world.set("a", email="new@example.com").run()
    assert (run.counts.removed, run.counts.added, run.counts.changed) == (1, 1, 0)
    assert world.other.emails == {"new@example.com"}


def test_invalid_rows_are_counted_by_reason_and_not_sent(world: World) -> None:
    world.add("good").add("n", email=None).add("m", email="not an address").add("twice").add("twice", score=2)
    world.rows.append({"person_id": None, "email": "x@example.com", "score": 1, "event_id": "e"})
    run = world.run()
    assert dict(run.counts.invalid_by_reason) == {
        "duplicate_key": 2,
        "malformed_identifier": 1,
        "missing_identifier": 1,
        "null_key": 1,
    }
    assert run.counts.adds_up
    assert world.other.emails == {"good@example.com"}


def test_a_key_that_becomes_ambiguous_is_not_removed(world: World) -> None:
    world.add("a", "b").run()
    run = world.add("a", score=7).run()
    assert (run.counts.removed, run.counts.invalid) == (0, 2)
    assert len(world.other.held) == 2


def dated(world: World, a: str) -> None:
    """The audience, with this moment of `a` and another one of everybody else."""
    kind = a.split(maxsplit=1)[0]
    world.build().store.execute(
        "create table audiences.undated as select * from audiences.aud_people",
        "drop table audiences.aud_people",
        f"create view audiences.aud_people as select person_id, email, event_id, case when person_id = 'a' then {a} else {kind} '2026-02-28' end as score from audiences.undated",
    )


@pytest.mark.parametrize(
    "impossible",
    [
        "date 'infinity'",
        "date '-infinity'",
        "date '12000-01-01'",
        "date '0001-01-01' - 1",
        "timestamp 'infinity'",
        "timestamp '10000-01-01 00:00:00'",
        "timestamptz '-infinity'",
        "timestamptz '10000-01-01 00:00:00+00'",
    ],
)
def test_a_date_beyond_the_calendar_costs_its_own_row_only(world: World, impossible: str) -> None:
    dated(world.add("a", "b"), impossible)
    run = world.engine().sync("people")
    assert (run.delivered, dict(run.counts.invalid_by_reason)) == (1, {"impossible_date": 1})
    assert run.counts.adds_up
    assert world.other.emails == {"b@example.com"}


def test_it_is_explained_as_it_is_planned(world: World) -> None:
    dated(world.add("a", "b"), "timestamp 'infinity'")
    [found] = world.engine().explain("a")
    assert (found.verdict, found.next_operation) == ("invalid:impossible_date", None)


@pytest.mark.parametrize(
    "impossible", ["timestamp_s '10000-01-01'", "timestamp_ms 'infinity'", "timestamp_ns '-infinity'"]
)
def test_it_costs_no_more_in_a_precision_that_only_duckdb_has(duckdb_world: World, impossible: str) -> None:
    world = duckdb_world.add("a", "b")
    dated(world, impossible)
    run = world.engine().sync("people")
    assert (run.delivered, dict(run.counts.invalid_by_reason)) == (1, {"impossible_date": 1})
    assert [row["score"] for row in world.other.held.values()] == ["2026-02-28T00:00:00+00:00"]


@pytest.mark.parametrize(
    ("last", "sent"),
    [
        ("date '0001-01-01'", "0001-01-01"),
        ("timestamp '9999-12-31 23:59:59'", "9999-12-31T23:59:59+00:00"),
        ("timestamptz '9999-12-31 23:59:59+00'", "9999-12-31T23:59:59+00:00"),
    ],
)
def test_the_first_and_the_last_day_of_the_calendar_are_dates(world: World, last: str, sent: str) -> None:
    dated(world.add("a", "b"), last)
    assert world.engine().sync("people").delivered == 2
    assert sent in {row["score"] for row in world.other.held.values()}


def test_a_date_that_becomes_impossible_removes_nobody(world: World) -> None:
    dated(world.add("a", "b"), "date '2026-01-01'")
    world.engine().sync("people")
    dated_again = "create or replace view audiences.aud_people as select person_id, email, event_id, date 'infinity' as score from audiences.undated"
    world.store.execute(dated_again)
    run = world.engine().sync("people")
    assert (run.counts.removed, run.counts.invalid, len(world.other.held)) == (0, 2, 2)


def test_one_address_belongs_to_one_person(world: World) -> None:
    world.add("a", email="shared@example.com").add("b", email="shared@example.com")
    run = world.run()
    assert (run.delivered, dict(run.counts.invalid_by_reason)) == (1, {"shared_identifier": 1})
    assert world.run().counts.planned == 0
    after = world.drop("a").run()
    assert (after.counts.removed, after.counts.added) == (1, 0)
    assert world.run().counts.added == 1
    assert world.other.emails == {"shared@example.com"}


def test_who_may_have_an_address_already_keeps_it(world: World) -> None:
    """Also while nobody knows, and though the newcomer's key is the smaller one."""
    world.other.script.append(lost_after)
    world.add("b", email="shared@example.com").run()
    world.clock.sleep(1000)
    run = world.add("a", email="shared@example.com").run()
    assert (run.delivered, dict(run.counts.invalid_by_reason)) == (1, {"shared_identifier": 1})
    assert [key for (key,) in world.query("select primary_key from activation.sync_snapshot")] == ["b"]


def test_one_bad_row_costs_one_row(world: World) -> None:
    world.add(*(f"p{n}" for n in range(40)))
    world.other.always = refuse_batch_with(
        lambda change: change["identifiers"].get("email") == "p7@example.com"
    )
    run = world.run()
    assert (run.delivered, run.rejected, run.run_status) == (39, 1, RunStatus.PARTIAL)
    assert run.requests <= 2 * 7 + 1


def test_a_rejected_row_waits_until_its_value_changes(world: World) -> None:
    world.other.always = refuse_rows(lambda change: change["fields"].get("score") == 13)
    world.add("a", score=13).add("b")
    assert world.run().rejected == 1
    again = world.run()
    assert (again.counts.planned, dict(again.counts.waiting_by_reason)) == (0, {"rejected": 1})
    assert world.query("select reason, attempts from activation.rejected_records") == [("bad_row", 1)]
    assert world.set("a", score=14).run().delivered == 1
    assert world.query("select count(*) from activation.rejected_records") == [(0,)]


def test_a_person_rejected_after_delivery_is_still_removed(world: World) -> None:
    world.add("a", "b").run()
    world.other.always = refuse_rows(lambda change: change["fields"].get("score") == 13)
    assert world.set("a", score=13).run().rejected == 1
    assert world.drop("a").run().counts.removed == 1
    assert world.other.emails == {"b@example.com"}


@pytest.mark.parametrize("fault", [lost_before, lost_after, garbled, status(500)])
def test_a_lost_answer_leaves_the_rows_in_doubt_until_they_are_asserted_again(
    world: World, fault: object
) -> None:
    world.other.script.append(fault)  # type: ignore[arg-type]
    run = world.add("a", "b").run()
    assert (run.in_doubt, run.delivered) == (2, 0)
    second = world.run()
    assert second.delivered == 2
    assert world.other.emails == {"a@example.com", "b@example.com"}
    assert dict(world.run().counts.waiting_by_reason) == {"settling": 2}
    world.clock.sleep(3600)
    assert world.run().delivered == 2, "asserted once more after the settle window"
    assert world.run().counts.planned == 0


def test_someone_in_doubt_who_leaves_is_removed(world: World) -> None:
    world.other.script.append(lost_after)
    world.add("a").run()
    run = world.add("b").drop("a").run()
    assert run.counts.removed == 1
    assert world.other.emails == {"b@example.com"}


def test_an_unreachable_destination_loses_nothing(world: World) -> None:
    world.other.always = cannot_connect
    run = world.add("a", "b").run()
    assert (run.run_status, run.retryable) == (RunStatus.FAILED, 2)
    assert "cannot be reached" in (run.error or "")
    world.other.always = None
    assert world.run().delivered == 2


def test_refused_credentials_stop_the_run_and_say_what_to_do(world: World) -> None:
    world.other.always = status(401)
    run = world.add("a").run()
    assert run.run_status is RunStatus.FAILED
    assert "destinations.yml" in (run.error or "")
    assert world.query("select count(*) from activation.sync_snapshot") == [(0,)]


def test_a_short_retry_after_is_waited_for(world: World) -> None:
    world.other.script.append(status(429, {"retry-after": "2"}))
    assert world.add("a").run().delivered == 1


def test_a_long_retry_after_binds_the_next_run_too(world: World) -> None:
    world.other.script.append(status(429, {"retry-after": "600"}))
    assert world.add("a").run().run_status is RunStatus.FAILED
    requests = world.other.requests
    assert world.run().run_status is RunStatus.FAILED
    assert world.other.requests == requests
    world.clock.sleep(600)
    assert world.run().delivered == 1


def test_planned_rows_equal_their_outcomes(world: World) -> None:
    world.other.always = refuse_rows(
        lambda change: str(change["identifiers"].get("email", "")).startswith("p3")
    )
    run = world.add(*(f"p{n}" for n in range(50))).run()
    assert run.counts.planned == run.delivered + run.rejected + run.retryable + run.in_doubt + run.suppressed
    assert world.query("select count(*) from activation.sync_changelog") == [(50,)]


def test_a_newly_mapped_field_is_back_filled(world: World) -> None:
    world.add("a", "b").run()
    world.configure(fields={"score": "score", "event": "event_id"})
    run = world.run()
    assert run.counts.changed == 2
    assert all("event" in row for row in world.other.held.values())


def test_a_batch_never_outgrows_the_destinations_limit(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    small = replace(SignedWebhook.capabilities, max_batch_bytes=2_000)
    monkeypatch.setattr(SignedWebhook, "capabilities", small)
    world.add(*(f"p{n}" for n in range(30))).add("big", email=f"{'x' * 3_000}@example.com")
    run = world.run()
    assert (run.delivered, run.rejected) == (30, 1)
    assert world.query("select reason from activation.rejected_records") == [("row_too_large",)]
    assert run.requests > 4


def test_two_answers_about_one_person_are_an_error_not_a_yes(world: World) -> None:
    world.add("a").build()
    world.store.execute(
        "insert into eligibility.fct_eligibility select person_id, channel, purpose, false, false, 'consent', 'consent', null, evaluated_at from eligibility.fct_eligibility where person_id = 'a'"
    )
    with pytest.raises(PlanRejected, match="there may be one row per person"):
        world.engine().sync("people")


def test_a_null_is_left_out_or_clears_as_the_mapping_says(world: World) -> None:
    world.configure(fields={"score": {"column": "score", "on_null": "clear"}, "event": "event_id"})
    world.add("a", score=None, event_id=None).run()
    [row] = world.other.held.values()
    assert row == {"email": "a@example.com", "score": None}
    assert FieldMapping(column="x").on_null is OnNull.OMIT


def test_no_value_escapes_with_an_error_of_the_warehouse(world: World) -> None:
    world.add("a").build()
    world.store.execute(
        "create table audiences.base as select * from audiences.aud_people",
        "drop table audiences.aud_people",
        "create view audiences.aud_people as select person_id, email, cast(email as integer) as score, event_id from audiences.base",
    )
    with pytest.raises(ActivationsError) as caught:
        world.engine().sync("people")
    assert "@" not in str(caught.value) and caught.value.__cause__ is None


def test_operations_and_outcomes_have_the_names_the_ledger_uses() -> None:
    assert [o.value for o in Operation] == ["added", "changed", "removed"]
    assert {o.value for o in Outcome} == {"delivered", "rejected", "retryable", "unknown", "suppressed"}


def test_rules_about_nobody_are_rules_about_nobody(make_world: Callable[..., World]) -> None:
    world = make_world(holdout="control")
    world.add("a").run()
    world.add("b").build()
    world.store.execute(
        "insert into eligibility.dim_holdouts (holdout, person_id, is_held_out) values ('control', null, true)",
        "insert into eligibility.fct_eligibility (person_id, channel, purpose, is_eligible) values (null, 'email', 'marketing', false)",
    )
    assert world.engine().sync("people").delivered == 1


def test_a_key_that_no_journal_can_index_costs_its_own_row_only(world: World) -> None:
    key = "".join(Random(1).choices(ascii_lowercase, k=6000))
    world.other.script.append(lost_after)
    run = world.add("b").add(key, email="long@example.com").run()
    assert (dict(run.counts.invalid_by_reason), run.in_doubt) == ({"key_too_long": 1}, 1)


@pytest.mark.parametrize("letter", ["x", "\u00e9", "\U0001f600"])
def test_the_longest_key_can_be_in_doubt(world: World, letter: str) -> None:
    world.other.script.append(lost_after)
    world.add("b").add(letter * LONGEST_KEY, email="long@example.com")
    assert world.run().in_doubt == 2
    world.clock.sleep(3600)
    assert world.run().delivered == 2
