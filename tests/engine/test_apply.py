"""A plan that was written down is applied exactly, or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from activations.errors import ActivationsError, PlanRejected
from activations.model import RunStatus
from tests.engine.world import World

MakeWorld = Callable[..., World]


def written(world: World) -> Path:
    """Build, plan, and write the plan down."""
    world.build()
    engine, file = world.engine(), world.root / "people.plan.json"
    engine.save_plan(engine.preview("people"), file)
    return file


def test_it_does_what_was_read_and_only_once(make_world: MakeWorld) -> None:
    world = make_world()
    file = written(world.add("a", "b"))
    run = world.engine().apply(file)
    assert (run.run_status, run.delivered) == (RunStatus.SUCCEEDED, 2)
    assert run.plan_id == json.loads(file.read_text())["plan_id"]
    with pytest.raises(PlanRejected, match="another run moved the ledger"):
        world.engine().apply(file)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda w: w.add("c"), "now 2 added, 0 changed, 1 removed"),
        (lambda w: w.set("a", score=9), "now 1 added, 1 changed, 1 removed"),
        (lambda w: w.block("b", "frequency"), "now 0 added, 0 changed, 1 removed"),
        (lambda w: w.configure(fields={"score": "score", "event": "event_id"}), "mapping"),
        (lambda w: w.configure(mode="upsert"), "mode"),
    ],
)
def test_whatever_moved_is_refused_and_nothing_is_sent(
    make_world: MakeWorld, change: Callable[[World], object], said: str
) -> None:
    world = make_world()
    world.add("a", "gone").run()
    file = written(world.drop("gone").add("b"))
    change(world)
    world.build()
    requests = world.other.requests
    with pytest.raises(PlanRejected, match=said):
        world.engine().apply(file)
    assert world.other.requests == requests
    assert world.engine().status()[0].run_status is RunStatus.FAILED
    assert world.engine().sync("people").run_status is RunStatus.SUCCEEDED


def test_a_plan_is_not_for_ever(make_world: MakeWorld) -> None:
    world = make_world()
    file = written(world.add("a"))
    world.clock.moment += timedelta(minutes=61)
    with pytest.raises(PlanRejected, match="expired"):
        world.engine().apply(file)
    assert not world.other.requests


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda d: d | {"content_hash": "0" * 64}, "altered"),
        (lambda d: d | {"expires_at": "2099-01-01T00:00:00"}, "altered"),
        (lambda d: {k: v for k, v in d.items() if k != "signature"}, "altered"),
        (lambda d: d | {"format": "activations-plan/0"}, "no plan of this version"),
        (lambda d: [], "not a JSON object"),
    ],
)
def test_an_altered_plan_is_refused(
    make_world: MakeWorld, spoil: Callable[[dict[str, object]], object], said: str
) -> None:
    world = make_world()
    file = written(world.add("a"))
    file.write_text(json.dumps(spoil(json.loads(file.read_text()))))
    with pytest.raises(PlanRejected, match=said):
        world.engine().apply(file)


def test_a_plan_that_is_not_there_is_one_sentence(make_world: MakeWorld) -> None:
    world = make_world()
    with pytest.raises(PlanRejected, match="cannot be read"):
        world.engine().apply(world.root / "nothing.json")
    preview = world.engine().preview("people")
    with pytest.raises(ActivationsError, match="there is no folder"):
        world.engine().save_plan(preview, world.root / "no/such/folder.json")


def test_a_held_plan_passes_when_it_was_released_as_it_stands(make_world: MakeWorld) -> None:
    world = make_world(guard={"floor_rows": 0})
    world.add(*"abcd").run()
    file = written(world.drop("a", "b"))
    assert world.engine().apply(file).run_status is RunStatus.HELD
    assert world.other.emails == {f"{p}@example.com" for p in "abcd"}
    world.engine().release_plan(file, by="ops", note="closing down")
    assert world.engine().apply(file).run_status is RunStatus.SUCCEEDED
    assert world.other.emails == {"c@example.com", "d@example.com"}
    assert world.engine().verify_audit() == 1


def test_a_release_is_for_no_other_plan(make_world: MakeWorld) -> None:
    world = make_world(guard={"floor_rows": 0})
    world.add(*"abcd").run()
    world.engine().release_plan(written(world.drop("a", "b")), by="ops", note="")
    assert world.drop("c").run().run_status is RunStatus.HELD


def test_somebody_who_said_no_meanwhile_leaves_with_it(make_world: MakeWorld) -> None:
    """Removals that nothing may hold back are no part of what a plan promises."""
    world = make_world()
    world.add("a", "b").run()
    file = written(world.add("c"))
    world.engine().suppress(["a@example.com"], channel="email", reason="objection", source="test")
    run = world.engine().apply(file)
    assert (run.run_status, run.counts.added, run.counts.removed) == (RunStatus.SUCCEEDED, 1, 1)
    assert world.other.emails == {"b@example.com", "c@example.com"}


def test_it_names_nobody_and_only_its_owner_reads_it(make_world: MakeWorld) -> None:
    world = make_world()
    file = written(world.add("a"))
    assert "example.com" not in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_plan_says_what_it_costs(make_world: MakeWorld) -> None:
    world = make_world()
    world.configure_account(batch_rows=2)
    world.add("a", "b", "c").build()
    first = world.engine().plan("people")
    assert (first.requests, first.seconds) == (2, None), "no rate and no run to go by"
    world.run()
    world.configure_account(batch_rows=2, rate_limit=0.5)
    world.drop("a").add("d").build()
    plan = world.engine().plan("people")
    assert (plan.requests, plan.seconds) == (2, 4.0), "a removal and an addition never travel together"


def test_rows_show_what_changes_for_whom_and_name_nobody(make_world: MakeWorld) -> None:
    world = make_world(fields={"score": "score", "event": "event_id"})
    world.add("a", "b", "gone", "blocked").run()
    world.set("a", score=9).drop("gone").block("blocked", "consent").add("new").build()
    rows = world.engine().preview("people", rows=10).rows
    by_operation = {row.operation.value: row for row in rows if row.operation.value != "removed"}
    assert sorted(row.reason or "" for row in rows if row.operation.value == "removed") == [
        "consent",
        "left_audience",
    ]
    changed, added = by_operation["changed"], by_operation["added"]
    assert changed.fields == ("score",)
    assert None not in (changed.before, changed.after) and changed.before != changed.after
    assert (added.fields, added.before) == ((), None)
    assert "example.com" not in str(rows) and len({row.person for row in rows}) == 4


def test_a_changed_mapping_is_shown_as_one(make_world: MakeWorld) -> None:
    world = make_world()
    world.add("a").run()
    world.configure(fields={"score": "score", "event": "event_id"})
    [row] = world.engine().preview("people", rows=10).rows
    assert row.fields == ("mapping",)


def test_as_many_rows_of_each_operation_as_asked_for(make_world: MakeWorld) -> None:
    world = make_world()
    world.add("a", "b", "c").run()
    world.drop("a", "b").add("d", "e").build()
    shown = [row.operation.value for row in world.engine().preview("people", rows=1).rows]
    assert shown == ["added", "removed"]
    assert world.engine().preview("people").rows == []
