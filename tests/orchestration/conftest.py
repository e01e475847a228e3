"""Definitions load once per session: it takes seconds, and nothing in here changes them."""

from __future__ import annotations

from collections.abc import Iterator

import dagster as dg
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


@pytest.fixture(scope="session")
def defs() -> dg.Definitions:
    from dagster_project.definitions import defs

    return defs


@pytest.fixture(scope="session")
def graph(defs: dg.Definitions):  # type: ignore[no-untyped-def]
    return defs.resolve_asset_graph()


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test() as instance:
        yield instance
