"""The sieve saves looking, never seeing: with it and without it a plan is the same plan."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from activations.planning import planner, sieve
from activations.planning.marks import changed_fields
from activations.planning.planner import FrozenPlan
from activations.warehouses.duckdb import DuckDBWarehouse
from tests.engine.conftest import forget_environment
from tests.engine.world import World, lost_after, lost_before, refuse_rows, status

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
    st.tuples(st.just("fields"), st.none(), st.sampled_from([{"score": "score"}, {"points": "score"}, {}])),
)
ANSWERS = {
    "ok": None,
    "lost after": lost_after,
    "lost before": lost_before,
    "failed": status(500),
    "some refused": refuse_rows(lambda c: "bad" in c["identifiers"].get("email", "")),
}
ROUNDS = st.lists(
    st.tuples(st.lists(EDITS, max_size=4), st.sampled_from(sorted(ANSWERS))), min_size=1, max_size=4
)


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
        case "fields":
            world.configure(fields=value)


@contextmanager
def always_sieved() -> Iterator[list[sieve.Sifted | None]]:
    """However large the share of rows that it leaves; yields what it found."""
    found: list[sieve.Sifted | None] = []

    def sift(*arguments: Any, **options: Any) -> sieve.Sifted | None:
        found.append(sieve.sift(*arguments, **options))
        return found[-1]

    with patch.object(sieve, "LARGEST_SHARE", 1.0), patch.object(planner, "sift", sift):
        yield found


def never_sieved() -> Any:
    return patch.object(planner, "sift", lambda *_, **__: None)


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
    with always_sieved(), pytest.raises(planner.PlanRejected, match="there may be one row per person"):
        plan(world)


def test_another_version_of_the_warehouse_looks_at_everybody_once(world: World) -> None:
    with patch.object(DuckDBWarehouse, "hashing", "duckdb 9.9"):
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
