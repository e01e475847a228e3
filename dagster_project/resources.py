"""What assets may hold: the warehouse file and the engine. Building them opens nothing."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import duckdb

from activations.config import Project
from activations.errors import WarehouseError, WarehouseLocked
from activations.runner import Engine, load_project

DUCKDB = "duckdb"
"""The pool of everything that opens the warehouse file: one writer, and a reader shuts the writer out too."""

ROOT = Path(__file__).resolve().parents[1]


def project() -> Project:
    """The project around this code location, read from YAML only."""
    return load_project(ROOT)


class Warehouse(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The DuckDB file, opened late and closed early, because whoever has it open shuts everybody else out."""

    path: str
    wait_seconds: float = 60.0

    @contextmanager
    def connect(self, *, read_only: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection for the length of a `with`; waits a bounded time for another process to let go."""
        Path(self.path).parent.mkdir(parents=True, exist_ok=True)
        connection = self._open(read_only, deadline=time.monotonic() + self.wait_seconds)
        try:
            connection.execute("set timezone = 'UTC'")
            yield connection
        finally:
            connection.close()

    def _open(self, read_only: bool, deadline: float) -> duckdb.DuckDBPyConnection:
        while True:
            try:
                return duckdb.connect(self.path, read_only=read_only)
            except duckdb.IOException as error:
                if "lock" not in str(error).lower():
                    raise WarehouseError(
                        f"{self.path} cannot be opened as a DuckDB file. Check the path and its permissions"
                    ) from None
                if time.monotonic() >= deadline:
                    raise WarehouseLocked(_holder(error, Path(self.path).name)) from None
                time.sleep(0.5)


def _holder(error: duckdb.IOException, name: str) -> str:
    """DuckDB knows the process, when it runs on this machine."""
    found = re.search(r"PID (\d+)", str(error))
    who = f"process {found.group(1)}" if found else "another process"
    return f"{name} is held by {who}. Wait for it, or stop it, and try again"


class Activations(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The sync engine over the project's YAML, composed anew for every asset: it keeps nothing between two."""

    root: str

    def engine(self) -> Engine:
        return Engine(load_project(Path(self.root)))
