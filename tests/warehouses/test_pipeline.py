"""The whole project on Postgres, by its command lines, beside the same on DuckDB: every table of every layer is equal."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from dagster_project.raw.load import Scale
from tests.conftest import ROOT, BuiltProject, sandbox_in
from tests.warehouses.raw_tables import load_into_postgres
from tests.warehouses.server import Server

pytestmark = pytest.mark.postgres

OURS = "table_schema not in ('raw', 'activation', 'monitoring', 'information_schema', 'pg_catalog')"
COUNTS = (
    "audience_size",
    "ineligible_by_reason",
    "held_out",
    "invalid",
    "waiting_by_reason",
    "added",
    "delivered",
)


@dataclass(frozen=True, kw_only=True)
class PostgresProject(BuiltProject):
    """The project's own syncs and models, on another warehouse."""

    server: Server
    database: str

    @property
    def environment(self) -> Mapping[str, str]:
        own = {
            "ACTIVATIONS_PROJECT_DIR": str(self.var / "project"),
            "WAREHOUSE_DSN": self.server.dsn(self.database),
        }
        return {**super().environment, **self.server.environment(self.database), **own}

    def configure(self) -> None:
        home = self.var / "project/activations"
        ignored = shutil.ignore_patterns("*.py", "__pycache__", "project.yml")
        shutil.copytree(ROOT / "activations", home, ignore=ignored)
        settings = yaml.safe_load((ROOT / "activations/project.yml").read_text())
        settings["warehouse"] = {"type": "postgres", "dsn": "env:WAREHOUSE_DSN"}
        (home / "project.yml").write_text(yaml.safe_dump(settings))

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.server.dsn(self.database)) as db:
            return db.execute(sql.encode()).fetchall()


@pytest.fixture(scope="module")
def on_postgres(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresProject]:
    """The slice loaded, the models built and tested by dbt, every sync run once."""
    var = tmp_path_factory.mktemp("postgres")
    with server.database() as database, sandbox_in(var) as sandbox:
        project = PostgresProject(var=var, sandbox_url=sandbox.url, server=server, database=database)
        project.configure()
        load_into_postgres(server.dsn(database), Scale.SLICE)
        project.activations("init")
        project.dbt("build", "--quiet")
        project.activations("sync")
        yield project


def runs(project: BuiltProject) -> dict[str, dict[str, Any]]:
    return {run["sync"]: run for run in json.loads(project.activations("status", "--json").stdout)}


def columns(project: BuiltProject) -> dict[str, list[str]]:
    """Relation → its columns."""
    found: dict[str, list[str]] = {}
    query = f"select table_schema, table_name, column_name from information_schema.columns where {OURS} order by 1, 2, 3"
    for schema, table, column in project.query(query):
        found.setdefault(f"{schema}.{table}", []).append(column)
    return found


def test_every_model_holds_the_same_rows(on_postgres: PostgresProject, synced: BuiltProject) -> None:
    relations = columns(synced)
    assert len(relations) > 90
    assert columns(on_postgres) == relations
    for relation, names in relations.items():
        query = f"select {', '.join(names)} from {relation}"
        different = Counter(on_postgres.query(query))
        different.subtract(Counter(synced.query(query)))
        assert not +different and not -different, relation


def test_the_same_people_are_sent(on_postgres: PostgresProject, synced: BuiltProject) -> None:
    expected, found = runs(synced), runs(on_postgres)
    assert {run["run_status"] for run in found.values()} == {"succeeded"}
    for name, run in expected.items():
        assert run["delivered"] > 10
        assert {key: found[name][key] for key in COUNTS} == {key: run[key] for key in COUNTS}
    keys = "select sync, primary_key from activation.sync_snapshot order by 1, 2"
    assert on_postgres.query(keys) == synced.query(keys)


def test_a_second_run_sends_nothing(on_postgres: PostgresProject) -> None:
    first = runs(on_postgres)
    on_postgres.activations("sync")
    for name, run in runs(on_postgres).items():
        assert (run["run_status"], run["requests"], run["delivered"]) == ("succeeded", 0, 0)
        assert run["unchanged"] == first[name]["delivered"] or run["unchanged"] == first[name]["unchanged"]


def test_a_person_can_be_explained(on_postgres: PostgresProject) -> None:
    person = on_postgres.query(
        "select primary_key from activation.sync_snapshot where sync = 'win_back__meta' limit 1"
    )
    told = json.loads(on_postgres.activations("explain", person[0][0], "--json").stdout)
    held = {entry["sync"]: entry["held_by_destination"] for entry in told}
    assert held["win_back__meta"] is True


def test_a_second_build_keeps_every_identity_and_holdout(on_postgres: PostgresProject) -> None:
    """Incremental models take their other branch now."""
    kept = [
        "select * from identity.identity_map order by identifier_type, identifier",
        "select * from identity.identity_events order by person_id, event_type",
        "select * from eligibility.dim_holdouts order by holdout, person_id",
    ]
    before = [on_postgres.query(query) for query in kept]
    on_postgres.dbt("run", "--quiet")
    assert [on_postgres.query(query) for query in kept] == before


def test_profiles_name_no_server_of_ours() -> None:
    profile = yaml.safe_load((ROOT / "dbt/profiles.yml").read_text())["activations"]["outputs"]["postgres"]
    assert "env_var" in profile["host"] and "env_var" in profile["password"]
    assert not Path(profile["host"]).is_absolute()
