"""What several suites share: one build of the whole project on the small slice of the demo data."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pytest
from filelock import FileLock

from activations.cli.stand_in import sandbox_places
from activations.runner import load_project
from activations.sandbox.server import RunningSandbox, start_in_background
from tests.warehouses.server import Server, postgres_server
from tests.warehouses.stores import NewStore, duckdb_store, postgres_stores

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, kw_only=True)
class BuiltProject:
    """A state folder in which the slice is loaded and dbt has built everything, and what to run in it."""

    var: Path
    sandbox_url: str = "http://127.0.0.1:9"
    """A sandbox of its own, or an address where nobody answers: the usual port may belong to somebody who is trying
    the project out."""

    @property
    def environment(self) -> Mapping[str, str]:
        own = {
            "ACTIVATIONS_VAR": self.var,
            "DBT_TARGET_PATH": self.var / "target",
            "DBT_LOG_PATH": self.var / "logs",
        }
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        return {
            **os.environ,
            **{name: str(value) for name, value in own.items()},
            "PATH": path,
            "COLUMNS": "140",
            "ACTIVATIONS_SANDBOX_URL": self.sandbox_url,
        }

    def run(self, *command: str, stdin: str = "", check: bool = True) -> subprocess.CompletedProcess[str]:
        """A command of the project in a process of its own, as a person would run it."""
        done = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=ROOT,
            env=self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def activations(
        self, *arguments: str, stdin: str = "", check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        return self.run("activations", *arguments, stdin=stdin, check=check)

    def dbt(self, *arguments: str) -> None:
        self.run("dbt.cli.main", *arguments, "--project-dir", "dbt", "--profiles-dir", "dbt")

    def execute(self, *statements: str) -> None:
        with duckdb.connect(str(self.var / "warehouse.duckdb")) as db:
            for statement in statements:
                db.execute(statement)

    def query(self, sql: str) -> list[tuple]:
        with duckdb.connect(str(self.var / "warehouse.duckdb"), read_only=True) as db:
            return db.execute(sql).fetchall()


def _build(var: Path) -> None:
    from dagster_project.raw.load import Scale, load_all

    var.mkdir()
    with duckdb.connect(str(var / "warehouse.duckdb")) as db:
        load_all(db, Scale.SLICE)
    project = BuiltProject(var=var)
    project.activations("init")
    project.dbt("build", "--quiet")


@pytest.fixture(scope="session")
def built_var(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder, built once for all workers of a test run. Nobody writes into it: see `built_project`."""
    shared = (
        tmp_path_factory.getbasetemp().parent
        if "PYTEST_XDIST_WORKER" in os.environ
        else tmp_path_factory.getbasetemp()
    )
    var = shared / "built"
    with FileLock(shared / "built.lock"):
        if not (var / "complete").exists():
            shutil.rmtree(var, ignore_errors=True)
            _build(var)
            (var / "complete").touch()
    return var


def sandbox_in(var: Path) -> RunningSandbox:
    """A sandbox that remembers in this state folder, until the `with` around it ends."""
    return start_in_background(var / "sandbox", places=sandbox_places(load_project(ROOT)))


@contextmanager
def _copy(built: Path, var: Path) -> Iterator[BuiltProject]:
    """A copy of the built folder, with a sandbox that remembers in it."""
    shutil.copytree(built, var)
    with sandbox_in(var) as sandbox:
        yield BuiltProject(var=var, sandbox_url=sandbox.url)


@pytest.fixture
def built_project(built_var: Path, tmp_path: Path) -> Iterator[BuiltProject]:
    """A copy that the test may do with what it likes."""
    with _copy(built_var, tmp_path / "var") as copied:
        yield copied


@pytest.fixture(scope="module")
def synced(built_var: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BuiltProject]:
    """A copy in which every sync ran once. Tests that share it only read it."""
    with _copy(built_var, tmp_path_factory.mktemp("synced") / "var") as project:
        project.activations("sync")
        yield project


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """One Postgres server per worker of a test run."""
    with postgres_server() as running:
        yield running


@pytest.fixture(scope="session", params=["duckdb", pytest.param("postgres", marks=pytest.mark.postgres)])
def warehouse_kind(request: pytest.FixtureRequest) -> str:
    """Both in turn: whoever asks for it, directly or through `new_store`, runs on both."""
    return str(request.param)


@pytest.fixture
def new_store(warehouse_kind: str, request: pytest.FixtureRequest) -> Iterator[NewStore]:
    if warehouse_kind == "duckdb":
        yield duckdb_store
        return
    with postgres_stores(request.getfixturevalue("server")) as new:
        yield new
