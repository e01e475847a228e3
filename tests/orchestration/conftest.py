"""Definitions load once per session: it takes seconds, and nothing in here changes them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass

import dagster as dg
import duckdb
import pytest

from activations.config import Project, Sync
from activations.runner import load_project
from dagster_project.resources import ROOT


@pytest.fixture(scope="session")
def project() -> Project:
    return load_project(ROOT)


@pytest.fixture(scope="session")
def a_sync(project: Project) -> Sync:
    """Any sync that runs after its audience."""
    return next(sync for sync in project.syncs.values() if sync.schedule == "after_audience")


@dataclass(frozen=True, kw_only=True)
class Loading:
    """The definitions, and what loading them did on the way."""

    defs: dg.Definitions
    opened_warehouse: bool
    imported_great_expectations: bool


@pytest.fixture(scope="session")
def loading() -> Loading:
    from dagster_project.definitions import build

    before = "great_expectations" in sys.modules
    opened: list[object] = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(duckdb, "connect", lambda *args, **_: opened.append(args))
        defs = build()
    imported = "great_expectations" in sys.modules and not before
    return Loading(defs=defs, opened_warehouse=bool(opened), imported_great_expectations=imported)


@pytest.fixture(scope="session")
def defs(loading: Loading) -> dg.Definitions:
    return loading.defs


@pytest.fixture(scope="session")
def graph(defs: dg.Definitions):
    return defs.resolve_asset_graph()


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test() as instance:
        yield instance
