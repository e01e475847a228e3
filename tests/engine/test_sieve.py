"""What saves looking never saves seeing: with the sieve and without it, foreseen or not, a plan is the same plan."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from activations import ledger
from activations.errors import PlanRejected
from activations.planning import comparing, inputs, sieve
from activations.planning.marks import changed_fields
from activations.planning.planner import FrozenPlan
from activations.warehouses.duckdb import DuckDBWarehouse
from tests.engine.conftest import forget_environment
from tests.engine.world import World, cannot_connect, lost_after, lost_before, refuse_rows, status


@pytest.fixture(autouse=True, scope="module")
def a_dozen_is_not_few() -> Iterator[None]:
    with patch.object(sieve, "FEW", -1):
        yield


def test_all_of_few_rows_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forget_environment(monkeypatch)
    world = World(tmp_path).add("1", "2")
    world.run()
    monkeypatch.setattr(sieve, "FEW", 2)
    with always_sieved() as found, foreseen() as taken:
        assert plan(world).plan.counts.unchanged == 2
        assert (found, taken) == ([], [])
        world.add("3").run()
        assert len(found) == 1


PEOPLE = [str(number) for number in range(1, 9)]
EMAILS = [
    "x@example.com", "X@example.com", " x@example.com", "y@example.com", "z@example.com", "bad@example.com", "no address", "", None,
    "ü@example.com",
]  # fmt: skip
PERSON, EMAIL = st.sampled_from(PEOPLE), st.sampled_from(EMAILS)
EDITS = st.one_of(
    st.tuples(st.just("score"), PERSON, st.sampled_from([None, 0, 1, 2, -(2**31)])),
    st.tuples(st.just("email"), PERSON, EMAIL),
    st.tuples(st.just("drop"), PERSON, st.none()),
    st.tuples(st.just("add"), PERSON, EMAIL),
    st.tuples(st.just("repeat"), PERSON, st.none()),
    st.tuples(st.just("block"), PERSON, st.sampled_from(["consent", "no_address", None])),
    st.tuples(st.just("unknown"), PERSON, st.none()),
    st.tuples(st.just("hold out"), PERSON, st.none()),
    st.tuples(st.just("suppress"), PERSON, st.none()),
    st.tuples(st.just("lift"), PERSON, st.none()),
    st.tuples(st.just("retry"), st.none(), st.none()),
    st.tuples(st.just("resync"), st.none(), st.none()),
    st.tuples(st.just("fields"), st.none(), st.sampled_from([{"score": "score"}, {"points": "score"}, {}])),
)
ANSWERS = {
    "ok": None,
    "lost after": lost_after,
    "lost before": lost_before,
    "failed": status(500),
    "not sent": cannot_connect,
    "some refused": refuse_rows(lambda c: "bad" in c["identifiers"].get("email", "")),
}
ROUNDS = st.lists(
    st.tuples(st.lists(EDITS, max_size=4), st.sampled_from(sorted(ANSWERS))), min_size=1, max_size=4
)

SMALL_ROUNDS = st.lists(
    st.tuples(st.one_of(st.none(), EDITS), st.sampled_from(["ok", "ok", "ok", *sorted(ANSWERS)])),
    min_size=2,
    max_size=6,
)
"""At most one change at a time: after more of them, something is nearly always looked at."""


class Numbered(World):
    """People are known by a number, not by a text."""

    def build(self) -> World:
        super().build()
        number_people(self)
        return self


def number_people(world: World) -> None:
    tables = ("audiences.aud_people", "eligibility.fct_eligibility", "eligibility.dim_holdouts")
    world.store.execute(
        *(
            f"create or replace table {table} as select * replace (try_cast(person_id as bigint) as person_id) "
            f"from {table} where person_id <> 'somebody' or person_id is null"
            for table in tables
        ),
        "insert into eligibility.fct_eligibility select 999, 'email', 'marketing', true, false, null, '', null, now()::timestamp",
        "insert into eligibility.dim_holdouts values ('control', 999, false, now()::timestamp)",
    )


def edit(world: World, what: str, person: str, value: Any) -> None:
    match what:
        case "score" | "email":
            world.set(person, **{what: value})
        case "drop":
            world.drop(person)
        case "add" if person not in {row["person_id"] for row in world.rows}:
            world.add(person, email=value)
        case "repeat":
            world.rows += [dict(row) for row in world.rows if row["person_id"] == person][:1]
        case "block":
            world.eligible[person] = value
        case "unknown":
            world.eligible.pop(person, None)
        case "hold out":
            world.held_out ^= {person}
        case "suppress":
            world.engine().suppress([person], channel="email", reason="unsubscribe", source="test")
        case "lift":
            world.engine().lift([person], channel="email", reason="subscribe", source="test")
        case "retry":
            world.engine().retry("people", by="somebody", note="test")
        case "resync":
            world.engine().resync("people", by="somebody", note="test")
        case "fields":
            world.configure(fields=value)


@contextmanager
def always_sieved() -> Iterator[list[sieve.Sifted | None]]:
    """However large the share of rows that it leaves, and also when nothing changed; yields what it found."""
    found: list[sieve.Sifted | None] = []
    real = inputs.expected

    def surprised(*arguments: Any) -> inputs.Expectation | None:
        last = real(*arguments)
        return replace(last, surroundings="others") if last else None

    def sift(*arguments: Any, **options: Any) -> sieve.Sifted | None:
        found.append(sieve.sift(*arguments, **options))
        return found[-1]

    with (
        patch.object(sieve, "LARGEST_SHARE", 1.0),
        patch.object(comparing, "sift", sift),
        patch.object(comparing, "expected", surprised),
    ):
        yield found


@contextmanager
def never_sieved() -> Iterator[None]:
    with (
        patch.object(comparing, "sift", lambda *_, **__: None),
        patch.object(comparing, "expected", lambda *_: None),
    ):
        yield


@contextmanager
def foreseen() -> Iterator[list[inputs.Finding]]:
    """Yields what plans took from the run before instead of looking."""
    found: list[inputs.Finding] = []
    real = comparing._as_expected

    def as_expected(*arguments: Any) -> Any:
        found.append(arguments[-1])
        return real(*arguments)

    with patch.object(comparing, "_as_expected", as_expected):
        yield found


def plan(world: World, name: str = "look.parquet") -> FrozenPlan:
    engine = world.engine()
    sync = engine.project.sync("people")
    path = world.root / "var/plans" / name
    with engine.journal() as journal, engine.warehouse().read() as session:
        return engine.make_plan(sync, journal, session, path)


def facts(frozen: FrozenPlan) -> dict[str, Any]:
    """Everything a run or a person goes by, whatever the order of rows."""
    file = frozen.frozen
    rows = file.file.slice(0, file.rows) if file.rows else []
    assert len(rows) == file.rows
    return {
        "plan": (frozen.plan.plan_id, frozen.plan.counts, frozen.plan.held_reason, frozen.plan.guards),
        "file": (file.rows, file.urgent, file.removals, file.content_hash),
        "rows": sorted(
            (r.row_key, r.identity, r.operation, r.payload_hash or "", str(r.fields)) for r in rows
        ),
        "closed": sorted(frozen.closed_rejections),
    }


@pytest.mark.parametrize(("kind", "mode"), [(World, "mirror"), (Numbered, "mirror"), (World, "upsert")])
@given(rounds=ROUNDS)
@settings(
    max_examples=8,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_with_and_without_it_a_plan_is_the_same(
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    kind: type[World],
    mode: str,
    rounds: list[tuple[list[tuple[str, str, Any]], str]],
) -> None:
    forget_environment(monkeypatch)
    world = kind(tmp_path_factory.mktemp("world"), mode=mode, holdout="control")
    world.add(*PEOPLE).run()
    for edits, answer in rounds:
        for change in edits:
            edit(world, *change)
        world.build()
        with always_sieved():
            sieved = facts(plan(world))
        with never_sieved():
            exact = facts(plan(world))
        assert sieved == exact
        world.other.always = ANSWERS[answer]
        with always_sieved():
            world.engine().sync("people")
        world.clock.sleep(1000)


@pytest.mark.parametrize("mode", ["mirror", "upsert"])
@given(rounds=SMALL_ROUNDS)
@settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_foreseen_or_not_a_plan_is_the_same(
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    mode: str,
    rounds: list[tuple[tuple[str, str, Any] | None, str]],
) -> None:
    forget_environment(monkeypatch)
    world = World(tmp_path_factory.mktemp("world"), mode=mode, holdout="control")
    world.add(*PEOPLE).run()
    for change, answer in rounds:
        if change:
            edit(world, *change)
        assert_same_plan(world)
        world.other.always = ANSWERS[answer]
        world.engine().sync("people")
        world.clock.sleep(1000)
    assert_same_plan(world)


def assert_same_plan(world: World) -> None:
    world.build()
    with never_sieved():
        exact = facts(plan(world))
    assert facts(plan(world)) == exact


def look(world: World) -> sieve.Sifted | None:
    world.build()
    with always_sieved() as found:
        plan(world)
    return found[-1]


def settled(world: World) -> int:
    found = look(world)
    return found.settled if found else 0


@pytest.fixture
def world(duckdb_world: World) -> World:
    """Eight people, delivered."""
    duckdb_world.add(*PEOPLE).run()
    return duckdb_world


def test_after_a_delivery_nobody_has_to_be_looked_at(world: World) -> None:
    assert settled(world) == 8


def test_only_who_changed_is_looked_at(world: World) -> None:
    world.set("1", score=7).block("2", "consent").drop("3")
    assert settled(world) == 5


def test_a_row_in_doubt_is_looked_at_until_it_is_settled(world: World) -> None:
    world.set("1", score=7)
    world.other.script.append(lost_after)
    world.run()
    assert settled(world) == 7
    world.run()
    world.clock.sleep(1000)
    world.run()
    assert settled(world) == 8


def test_who_was_suppressed_since_is_looked_at(world: World) -> None:
    world.engine().suppress(["1@example.com"], channel="email", reason="unsubscribe", source="test")
    assert settled(world) == 7


def test_two_rows_alike_are_both_looked_at(world: World) -> None:
    """Hash and key of both are those of the snapshot."""
    world.rows.append(dict(world.rows[0]))
    assert settled(world) == 7


def test_two_rules_about_somebody_who_did_not_change_are_noticed(world: World) -> None:
    world.build().store.execute(
        "insert into eligibility.fct_eligibility select * from eligibility.fct_eligibility where person_id = '1'"
    )
    with always_sieved(), pytest.raises(PlanRejected, match="there may be one row per person"):
        plan(world)


@pytest.mark.parametrize("at_once", [3, ledger.HASHES_AT_ONCE])
def test_another_version_of_the_warehouse_looks_at_everybody_once(world: World, at_once: int) -> None:
    with (
        patch.object(DuckDBWarehouse, "hashing", "duckdb 9.9"),
        patch.object(ledger, "HASHES_AT_ONCE", at_once),
    ):
        assert settled(world) == 0
        assert world.run().counts.unchanged == 8
        assert settled(world) == 8, "the hashes were renewed"


def test_other_hashes_under_the_same_name_are_found_out(world: World) -> None:
    """The canary: should `hash` ever give something else in one version, everybody is looked at, and nobody sent."""
    real = DuckDBWarehouse.row_hash

    def other(self: DuckDBWarehouse, salt: str, values: Any) -> Any:
        return real(self, f"{salt}!", values)

    with patch.object(DuckDBWarehouse, "row_hash", other):
        assert settled(world) == 0
        assert world.run().counts.planned == 0


def test_a_key_that_reads_like_another_number_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The snapshot's 007 was a text; now keys are numbers, and 7 is somebody else."""
    forget_environment(monkeypatch)
    world = World(tmp_path).add("1", "007")
    world.run()
    world.drop("007").build()
    number_people(world)
    with always_sieved():
        sieved = facts(plan(world))
    with never_sieved():
        assert sieved == facts(plan(world))
    assert sieved["plan"][1].removed == 1


def test_a_corrected_case_is_no_change_and_is_learnt(world: World) -> None:
    """The identity folds it, so it is looked at once and sent never."""
    world.set("1", email="1@EXAMPLE.com")
    assert settled(world) == 7
    assert world.run().counts.planned == 0
    assert settled(world) == 8


def test_what_changed_is_named(world: World) -> None:
    world.set("1", score=7).build()
    assert _changed(world, "1") == ("score",)
    world.configure(fields={"points": "score"})
    assert _changed(world, "1") == ("mapping",)


def _changed(world: World, person: str) -> tuple[str, ...]:
    frame = pl.read_parquet(plan(world).frozen.file.path).filter(pl.col("row_key") == person)
    [(old, new)] = frame.select("old_marks", "field_marks").rows()
    return changed_fields(world.engine().project.sync("people"), old, new)


def test_a_preview_leaves_nothing_behind(duckdb_world: World) -> None:
    """Neither its rows nor the hashes that a run would have renewed."""
    world = duckdb_world
    world.add("a", "b").run()
    world.store.execute("update activation.sync_snapshot set sieve = null")
    world.engine().plan("people")
    assert list(world.engine().plans.iterdir()) == []


def is_foreseen(world: World) -> bool:
    """Whether a plan of the world as it is now takes the last run's word; and that word is true."""
    world.build()
    with foreseen() as found:
        assert_same_plan(world)
    return bool(found)


def test_what_was_delivered_whole_is_not_looked_at_again(world: World) -> None:
    assert is_foreseen(world)
    assert world.run().counts.unchanged == 8
    assert is_foreseen(world)


@pytest.mark.parametrize(
    "change",
    [
        ("score", "1", 7),
        ("email", "1", "new@example.com"),
        ("drop", "1", None),
        ("repeat", "1", None),
        ("block", "1", "consent"),
        ("unknown", "1", None),
        ("hold out", "1", None),
        ("suppress", "1", None),
        ("resync", None, None),
        ("fields", None, {"points": "score"}),
    ],
    ids=lambda change: change[0],
)
def test_whatever_changes_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: tuple[str, str, Any]
) -> None:
    forget_environment(monkeypatch)
    world = World(tmp_path, holdout="control").add(*PEOPLE)
    world.run()
    assert is_foreseen(world)
    edit(world, *change)
    assert not is_foreseen(world)


def test_a_change_that_was_taken_back_is_no_change(world: World) -> None:
    world.set("1", score=7)
    assert not is_foreseen(world)
    world.set("1", score=1)
    assert is_foreseen(world)


def test_a_change_that_was_sent_and_taken_back_is_one(world: World) -> None:
    """The inputs are those of the first run, and the destination is not what it was."""
    world.set("1", score=7).run()
    world.set("1", score=1)
    assert not is_foreseen(world)


def test_what_was_not_delivered_whole_is_looked_at_until_it_is(world: World) -> None:
    world.set("1", score=7)
    world.other.script.append(status(500))
    world.run()
    assert not is_foreseen(world)
    world.run()
    world.clock.sleep(1000)
    world.run()
    assert world.run().counts.unchanged == 8, "nothing is open any more"
    assert is_foreseen(world)


def test_what_could_not_be_sent_is_looked_at(world: World) -> None:
    """Nothing is open then, and the ledger stands where it stood."""
    world.set("1", score=7)
    world.other.always = cannot_connect
    world.run()
    assert not is_foreseen(world)


def test_the_word_of_a_run_before_the_last_does_not_count(world: World) -> None:
    """The last one died before it could say anything, and the audience is again what it was before."""
    world.set("1", score=7)
    with patch.object(ledger, "expect", lambda *_: None):
        world.run()
    world.set("1", score=1)
    assert not is_foreseen(world)


def test_a_refused_row_that_nobody_corrected_is_no_reason_to_look(world: World) -> None:
    world.set("1", email="bad@example.com")
    world.other.always = ANSWERS["some refused"]
    world.run()
    assert world.run().counts.waiting == 1
    assert is_foreseen(world)
    world.engine().retry("people", by="somebody", note="test")
    assert not is_foreseen(world)


def test_a_snapshot_that_lost_rows_is_looked_at(world: World) -> None:
    world.store.execute("delete from activation.sync_snapshot where primary_key = '1'")
    assert not is_foreseen(world)


def test_what_the_sieve_saw_of_the_audience_is_all_of_it(world: World) -> None:
    world.set("1", score=7).block("2", "consent").drop("3").add("9")
    with always_sieved():
        world.run()
    assert is_foreseen(world)
