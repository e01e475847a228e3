"""Every engine test runs on every warehouse."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.engine.world import World
from tests.warehouses.stores import NewStore


@pytest.fixture
def make_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, new_store: NewStore) -> Callable[..., World]:
    forget_environment(monkeypatch)
    return partial(World, tmp_path, new_store=new_store)


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    return make_world()


@pytest.fixture
def duckdb_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """For what only a file can do."""
    forget_environment(monkeypatch)
    return World(tmp_path)


def forget_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The person who runs the tests may have moved state or dbt's target elsewhere."""
    monkeypatch.delenv("ACTIVATIONS_VAR", raising=False)
    monkeypatch.delenv("DBT_TARGET_PATH", raising=False)
