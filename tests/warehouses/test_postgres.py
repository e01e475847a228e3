"""What only a server with many users can do to the engine."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pyarrow as pa
import pytest
import sqlglot.expressions as exp
import yaml
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from sqlglot import select

from activations.errors import ConfigError, WarehouseError, WarehouseLocked
from activations.manifest import Relation
from activations.model import RunStatus
from activations.runner import load_project
from activations.warehouses.postgres import PostgresWarehouse
from tests.engine.conftest import forget_environment
from tests.engine.world import World
from tests.warehouses.server import Server
from tests.warehouses.stores import NewStore, PostgresStore, postgres_stores

pytestmark = pytest.mark.postgres

AUDIENCE = Relation(schema="audiences", name="aud_people")
SECRET = "hunter2"


@pytest.fixture
def new_postgres(server: Server) -> Iterator[NewStore]:
    with postgres_stores(server) as new:
        yield new


@pytest.fixture
def world(new_postgres: NewStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    forget_environment(monkeypatch)
    return World(tmp_path, new_store=new_postgres)


@pytest.fixture
def store(new_postgres: NewStore, tmp_path: Path) -> PostgresStore:
    store = new_postgres(tmp_path)
    assert isinstance(store, PostgresStore)
    return store


@pytest.fixture
def warehouse(store: PostgresStore) -> PostgresWarehouse:
    return PostgresWarehouse(store.dsn, wait_seconds=0.2)


def dsn_of(world: World) -> str:
    assert isinstance(world.store, PostgresStore)
    return world.store.dsn


# -- others at work ------------------------------------------------------------------------------------------------


def test_a_relation_rebuilt_during_a_plan_is_seen_as_it_was(
    warehouse: PostgresWarehouse, store: PostgresStore
) -> None:
    """A table put in place after the snapshot was taken would look empty: everybody would be removed."""
    build = "create table audiences.aud_people as select 'a' as person_id"
    store.execute("create schema audiences", build)
    with warehouse.read() as session:
        session.hold(AUDIENCE)
        rebuild = threading.Thread(target=store.execute, args=["drop table audiences.aud_people", build])
        rebuild.start()
        rebuild.join(0.3)
        assert rebuild.is_alive(), "dbt waits for the plan"
        assert session.rows("select person_id from audiences.aud_people") == [("a",)]
    rebuild.join(5)
    assert not rebuild.is_alive()


def test_rows_changed_in_place_during_a_plan_are_not_seen(
    warehouse: PostgresWarehouse, store: PostgresStore
) -> None:
    store.execute("create schema audiences", "create table audiences.aud_people (person_id text)")
    with warehouse.read() as session:
        session.hold(AUDIENCE)
        session.rows("select 1")
        store.execute("insert into audiences.aud_people values ('late')")
        assert session.rows("select count(*) from audiences.aud_people") == [(0,)]


def test_views_and_materialised_views_can_be_held(warehouse: PostgresWarehouse, store: PostgresStore) -> None:
    store.execute(
        "create schema audiences",
        "create view audiences.a_view as select 'a' as person_id",
        "create materialized view audiences.a_copy as select 'a' as person_id",
    )
    with warehouse.read() as session:
        session.hold(*(Relation(schema="audiences", name=name) for name in ("a_view", "a_copy", "missing")))
        assert session.rows("select person_id from audiences.a_copy") == [("a",)]


def test_a_read_session_leaves_nothing_behind(warehouse: PostgresWarehouse, store: PostgresStore) -> None:
    store.execute("create schema audiences", "create table audiences.aud_people (person_id text)")
    with warehouse.read() as session:
        session.hold(AUDIENCE)
        session.run("insert into audiences.aud_people values ('stray')")
    assert store.query("select count(*) from audiences.aud_people") == [(0,)]


def test_ledger_writers_come_one_after_the_other(warehouse: PostgresWarehouse) -> None:
    def write() -> None:
        with warehouse.write() as second, second.transaction():
            pass

    with (
        warehouse.write() as first,
        first.transaction(),
        pytest.raises(WarehouseLocked, match="another session"),
    ):
        write()
    write()


def test_a_locked_audience_is_named_and_changes_nothing(world: World) -> None:
    world.add("a").build()
    with psycopg.connect(dsn_of(world)) as holder:
        holder.execute("lock table audiences.aud_people in access exclusive mode")
        with pytest.raises(WarehouseLocked, match="another session"):
            world.engine().sync("people")
    assert world.other.requests == 0
    assert world.run().delivered == 1


def test_a_connection_cut_in_the_middle_of_a_plan_changes_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from activations.planning import planner

    def cut(*_: object) -> None:
        with psycopg.connect(dsn_of(world), autocommit=True) as other:
            other.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'activations'"
            )

    world.add("a").build()
    with monkeypatch.context() as patch:
        patch.setattr(planner, "check_spoken", cut)
        with pytest.raises(WarehouseError, match="the warehouse failed"):
            world.engine().sync("people")
    assert world.other.requests == 0
    assert world.run().delivered == 1


def test_a_server_lost_after_sending_is_merged_by_the_next_run(world: World) -> None:
    assert isinstance(world.store, PostgresStore)
    dsn = world.store.file.read_text()

    def lose_the_server(other: object, request: object) -> object:
        world.store.file.write_text(make_conninfo(dsn, host="/nowhere"))  # type: ignore[attr-defined]
        return world.other.accept(request)  # type: ignore[arg-type]

    world.other.script.append(lose_the_server)  # type: ignore[arg-type]
    run = world.add("a").run()
    assert (run.run_status, run.delivered) == (RunStatus.SUCCEEDED, 1)
    assert "the next run does" in (run.error or "")
    world.store.file.write_text(dsn)
    assert world.run().counts.planned == 0
    assert world.query("select count(*) from activation.sync_snapshot") == [(1,)]


# -- what cannot be read or sent -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "says"),
    [
        ("1.5::numeric", "digits are not bounded"),
        ("array['a']", "cannot be sent"),
        ("'NaN'::numeric(5, 2)", "no decimal128"),
        ("'infinity'::timestamp", "the warehouse failed"),
    ],
)
def test_values_that_no_file_holds_exactly_are_refused(
    warehouse: PostgresWarehouse, store: PostgresStore, column: str, says: str
) -> None:
    query = select(exp.alias_(exp.column("x"), "f.x", quoted=True)).from_("given")
    store.execute(f"create table given as select {column} as x")
    with pytest.raises(WarehouseError, match=says), warehouse.read() as session:
        session.stream(query, 10).read_all()


def test_names_that_postgres_would_cut_off_are_refused(warehouse: PostgresWarehouse) -> None:
    with pytest.raises(WarehouseError, match="keeps 63 bytes"), warehouse.read() as session:
        session.stream(select(f'1 as "f.{"x" * 62}"'), 10)


def test_errors_hold_no_values(warehouse: PostgresWarehouse) -> None:
    for statement in (
        f"select cast('{SECRET}' as integer)",
        f"select '{SECRET}'::date",
        f"select 1 {SECRET} {SECRET}",
    ):
        with pytest.raises(WarehouseError) as caught, warehouse.read() as session:
            session.rows(statement)
        assert SECRET not in str(caught.value)
        assert caught.value.__cause__ is None and caught.value.__suppress_context__


@pytest.mark.parametrize(
    ("dsn", "says"),
    [
        (f"postgresql://somebody:{SECRET}@/x?host=/nowhere", "cannot be reached"),
        (f"host=/nowhere {SECRET}", "no connection string"),
        (f"postgresql://ops:a@{SECRET}@nowhere.invalid/x", "write @ in a password as %40"),
        (f"postgres://ops:a@{SECRET}:b@nowhere.invalid/x", "write @ in a password as %40"),
        (f"postgresql://ops:a@{SECRET}%40nowhere.invalid/x", "write @ in a password as %40"),
        (f"postgresql://ops:a@{SECRET}/b@nowhere.invalid/x", "/ as %2F"),
        (f"postgresql://ops:1/{SECRET}@nowhere.invalid/x", "/ as %2F"),
        (f"host={SECRET}@nowhere.invalid user=ops", "no connection string"),
    ],
)
def test_a_bad_dsn_says_what_to_do_and_keeps_the_password(dsn: str, says: str) -> None:
    with pytest.raises(WarehouseError, match=says) as caught, PostgresWarehouse(dsn).read():
        pass
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://me%40here:a%40b%2Fc@/x%40y?host=/nowhere",
        "postgresql:///x?host=/nowhere&user=me@here&password=a@b/c",
        "host=/nowhere user=me@here password=a@b/c",
    ],
)
def test_a_password_may_hold_any_character_where_it_is_read_as_it_is_meant(dsn: str) -> None:
    assert conninfo_to_dict(dsn)["password"] == "a@b/c"
    with pytest.raises(WarehouseError, match="cannot be reached"), PostgresWarehouse(dsn).read():
        pass


def test_a_database_in_another_encoding_is_refused(server: Server) -> None:
    server.execute(
        "create database latin template template0 encoding 'LATIN1' locale_provider libc locale 'C'"
    )
    with (
        pytest.raises(WarehouseError, match="encoded in LATIN1"),
        PostgresWarehouse(server.dsn("latin")).read(),
    ):
        pass
    server.execute("drop database latin")


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"type": "postgres"}, "needs `dsn: env:NAME`"),
        (
            {"type": "postgres", "dsn": f"postgresql://x:{SECRET}@host/db"},
            "a reference to the connection string",
        ),
        ({"type": "postgres", "dsn": "env:X", "path": "x.duckdb"}, "`path` does not belong to type postgres"),
        ({"type": "duckdb", "dsn": "env:X"}, "`dsn` does not belong to type duckdb"),
    ],
)
def test_settings_that_cannot_work_are_refused(world: World, settings: dict[str, str], says: str) -> None:
    (world.root / "activations/project.yml").write_text(yaml.safe_dump({"warehouse": settings}))
    with pytest.raises(ConfigError, match=says) as caught:
        load_project(world.root)
    assert SECRET not in str(caught.value)


# -- grants --------------------------------------------------------------------------------------------------------

GRANTS = re.compile(r"```sql\n(create role activations.*?)```", re.S)


@pytest.fixture
def granted(server: Server, world: World) -> Iterator[World]:
    """The engine connects as the role that the documentation tells an administrator to make."""
    assert isinstance(world.store, PostgresStore)
    documented = GRANTS.findall((Path(__file__).parents[2] / "docs/operating.md").read_text())
    database = str(conninfo_to_dict(world.store.dsn)["dbname"])
    statements = documented[0].replace("on database warehouse", f"on database {database}").strip(";\n")
    world.add("a").build()
    schemas = "drop schema activation, activations_journal cascade"
    world.store.execute(schemas, *statements.split(";"))
    world.store.file.write_text(server.dsn(database, user="activations"))
    yield world
    for role in ("activations", "dbt"):  # apart: of both at once Postgres drops a default privilege twice
        world.store.execute(f"drop owned by {role} cascade", f"drop role {role}")


def test_the_documented_grants_are_enough(granted: World) -> None:
    granted.engine().prepare()
    granted.engine().prepare()
    assert granted.engine().sync("people").delivered == 1


def test_a_missing_grant_is_named(granted: World) -> None:
    granted.engine().prepare()
    granted.store.execute("revoke select on audiences.aud_people from activations")
    with pytest.raises(WarehouseError, match="permission denied for table aud_people. Grant it"):
        granted.engine().sync("people")


def test_the_engine_cannot_write_what_dbt_owns(granted: World) -> None:
    assert isinstance(granted.store, PostgresStore)
    with (
        pytest.raises(WarehouseError, match="permission denied"),
        PostgresWarehouse(granted.store.file.read_text()).write() as session,
    ):
        session.run("delete from audiences.aud_people")


def test_bytes_and_nulls_survive_a_load(warehouse: PostgresWarehouse) -> None:
    table = pa.table({"sealed": pa.array([b"\\", b'"', None], pa.binary())})
    with warehouse.read() as session:
        session.load("given", table)
        assert session.stream(select("sealed").from_("given"), 2).read_all().equals(table)
