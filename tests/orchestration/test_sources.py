"""How much of the demo data a run loads. Less than the run before it would take most people out of every audience."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import duckdb
import pytest

from activations.errors import ConfigError
from dagster_project.defs.sources import SCALE, demo_scale, raw_asset
from dagster_project.raw.load import RAW_TABLES, Scale, load_raw
from dagster_project.resources import Warehouse


@pytest.fixture(autouse=True)
def no_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SCALE, raising=False)


def loaded_by_a_run(warehouse: Path) -> str:
    """Materialise the clock, as every run from the UI does; the scale that the asset shows."""
    result = dg.materialize(
        [raw_asset("clock", RAW_TABLES["clock"])], resources={"warehouse": Warehouse(path=str(warehouse))}
    )
    return str(result.asset_materializations_for_node("raw__clock")[0].metadata["scale"].value)


@pytest.mark.parametrize("scale", Scale)
def test_a_run_keeps_the_scale_that_the_warehouse_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scale: Scale
) -> None:
    warehouse = tmp_path / "warehouse.duckdb"
    monkeypatch.setenv(SCALE, scale)
    assert loaded_by_a_run(warehouse) == scale
    monkeypatch.delenv(SCALE)
    assert loaded_by_a_run(warehouse) == scale


def test_somebody_may_say_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    with duckdb.connect() as connection:
        load_raw(connection, "clock", Scale.FULL)
        monkeypatch.setenv(SCALE, "slice")
        assert demo_scale(connection) is Scale.SLICE


@pytest.mark.parametrize(
    "statements",
    [
        "",
        "create schema raw",
        "create schema raw; create table raw.clock as select timestamp '2026-01-01' as as_of",
    ],
)
def test_all_is_loaded_where_nothing_of_it_is(statements: str) -> None:
    with duckdb.connect() as connection:
        connection.execute(statements)
        assert demo_scale(connection) is Scale.FULL


def test_an_unknown_scale_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SCALE, "half")
    with (
        duckdb.connect() as connection,
        pytest.raises(ConfigError, match=f"{SCALE}: unknown scale half.*slice or full"),
    ):
        demo_scale(connection)
