"""Reacts to new rows in the raw tables, whoever wrote them.

A tick reads, per dbt source, the number of rows and the newest `loaded_at_field`, compares with the cursor and asks
for one run of `refresh`. It opens the file read-only for an instant and gives way at once when somebody else has it:
the next tick looks again. An edit that moves neither number is left to the daily schedule.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb

from activations.errors import WarehouseLocked
from dagster_project.defs.jobs import refresh
from dagster_project.resources import Warehouse

Fingerprint = Mapping[str, Sequence[Any]]

LIVELY = 30
"""Seconds between two ticks: a withdrawn consent should not wait for the night."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceTable:
    """One dbt source table, and the column that tells when its rows arrived."""

    schema: str
    name: str
    loaded_at: str | None

    @property
    def query(self) -> str:
        newest = f'max("{self.loaded_at}")::varchar' if self.loaded_at else "null"
        return f'select count(*), {newest} from "{self.schema}"."{self.name}"'


def source_tables(manifest: Mapping[str, Any]) -> list[SourceTable]:
    """The sources that other systems write; the engine's own ledger is none of them."""
    return [
        SourceTable(schema=s["schema"], name=s["identifier"], loaded_at=s.get("loaded_at_field"))
        for s in manifest["sources"].values()
        if s["schema"] != "activation"
    ]


def fingerprint(connection: duckdb.DuckDBPyConnection, tables: Sequence[SourceTable]) -> dict[str, list[Any]]:
    """Row count and newest arrival of every table that exists."""
    existing = set(
        connection.execute("select table_schema, table_name from information_schema.tables").fetchall()
    )
    present = [table for table in tables if (table.schema, table.name) in existing]
    return {table.name: list(connection.execute(table.query).fetchall()[0]) for table in present}


def changed(before: Fingerprint, now: Fingerprint) -> list[str]:
    return sorted(name for name in {*before, *now} if before.get(name) != now.get(name))


@dataclass(frozen=True, slots=True, kw_only=True)
class Cursor:
    """What the last tick saw. The number keeps run keys apart when data goes back to an earlier state."""

    number: int
    seen: Fingerprint

    @classmethod
    def parse(cls, text: str | None) -> Cursor | None:
        return cls(**json.loads(text)) if text else None

    def dump(self) -> str:
        return json.dumps({"number": self.number, "seen": self.seen}, sort_keys=True)

    @property
    def run_key(self) -> str:
        return f"raw-{self.number}-{hashlib.sha256(self.dump().encode()).hexdigest()[:12]}"


def look(cursor: Cursor | None, now: Fingerprint) -> dg.SensorResult:
    """Compare with the last look. The first one only remembers: there is nothing to compare with."""
    if cursor is None:
        first = Cursor(number=0, seen=now)
        return dg.SensorResult(skip_reason=f"First look: {len(now)} tables remembered", cursor=first.dump())
    names = changed(cursor.seen, now)
    if not names:
        return dg.SensorResult(skip_reason=f"No new rows in {len(now)} tables")
    following = Cursor(number=cursor.number + 1, seen=now)
    request = dg.RunRequest(run_key=following.run_key, tags={"changed": ", ".join(names)[:200]})
    return dg.SensorResult(run_requests=[request], cursor=following.dump())


def raw_data_sensor(tables: Sequence[SourceTable]) -> dg.SensorDefinition:
    @dg.sensor(
        name="new_raw_data",
        job=refresh,
        minimum_interval_seconds=LIVELY,
        default_status=dg.DefaultSensorStatus.STOPPED,
        description="New rows in a raw table, consent events above all: rebuild and deliver the difference.",
    )
    def new_raw_data(
        context: dg.SensorEvaluationContext, warehouse: Warehouse
    ) -> dg.SensorResult | dg.SkipReason:
        if not Path(warehouse.path).exists():
            return dg.SkipReason("There is no warehouse yet: run the job `pipeline` first")
        try:
            with Warehouse(path=warehouse.path, wait_seconds=0).connect(read_only=True) as connection:
                now = fingerprint(connection, tables)
        except (WarehouseLocked, duckdb.ConnectionException):
            return dg.SkipReason("The warehouse is in use: looking again at the next tick")
        return look(Cursor.parse(context.cursor), now)

    return new_raw_data
