"""Run single layers of the dbt project on small tables written by a test."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pytest
from dbt.artifacts.schemas.run import RunExecutionResult
from dbt.cli.main import dbtRunner
from dbt.contracts.graph.manifest import Manifest

PROJECT = Path(__file__).parents[3] / "dbt"


@dataclass(frozen=True, kw_only=True)
class Warehouse:
    """A DuckDB file in which the tables a model reads are ours, and the model itself is the project's."""

    path: Path
    dbt: dbtRunner
    flags: Sequence[str]

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        with duckdb.connect(str(self.path)) as connection:
            return connection.execute(sql).fetchall()

    def write(self, relation: str, columns: str, rows: Sequence[tuple[Any, ...]]) -> None:
        """Replace `relation` by `rows`; `columns` reads like the inside of a CREATE TABLE."""
        schema, _ = relation.split(".")
        with duckdb.connect(str(self.path)) as connection:
            connection.execute(f"create schema if not exists {schema}")
            connection.execute(f"create or replace table {relation} ({columns})")
            if rows:
                marks = ", ".join("?" for _ in rows[0])
                connection.executemany(f"insert into {relation} values ({marks})", rows)

    def try_run(self, *select: str, arguments: Sequence[str] = ()) -> str | None:
        """Build the models; the message of the first failure, or None."""
        result = self.dbt.invoke(["--quiet", "run", *self.flags, *arguments, "--select", *select])
        if result.exception:
            return str(result.exception)
        assert isinstance(result.result, RunExecutionResult)
        return next((node.message for node in result.result.results if node.status != "success"), None)

    def run(self, *select: str, arguments: Sequence[str] = ()) -> None:
        failure = self.try_run(*select, arguments=arguments)
        assert failure is None, failure


@pytest.fixture(scope="session")
def dbt_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[dbtRunner, Sequence[str], Path]]:
    """The project parsed once for all tests: parsing takes longer than any of the runs."""
    folder = tmp_path_factory.mktemp("identity")
    flags = ["--project-dir", str(PROJECT), "--profiles-dir", str(PROJECT)]
    flags += ["--target-path", str(folder / "target"), "--log-path", str(folder / "logs")]
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("ACTIVATIONS_VAR", str(folder))
        parsed = dbtRunner().invoke(["--quiet", "parse", *flags])
        assert isinstance(parsed.result, Manifest), parsed.exception
        yield dbtRunner(manifest=parsed.result), flags, folder / "warehouse.duckdb"


@pytest.fixture(scope="module")
def warehouse(dbt_session: tuple[dbtRunner, Sequence[str], Path]) -> Warehouse:
    """An empty warehouse."""
    dbt, flags, path = dbt_session
    path.unlink(missing_ok=True)
    return Warehouse(path=path, dbt=dbt, flags=flags)
