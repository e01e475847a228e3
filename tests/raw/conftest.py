from __future__ import annotations

from collections.abc import Iterator

import duckdb
import pytest

from dagster_project.raw.load import Scale, load_all


@pytest.fixture(scope="session")
def small() -> Iterator[duckdb.DuckDBPyConnection]:
    """The slice in memory; tests only read it."""
    with duckdb.connect() as connection:
        load_all(connection, Scale.SLICE)
        yield connection
