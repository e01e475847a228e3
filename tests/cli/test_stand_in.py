"""Which sandbox a command talks to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from activations.cli.stand_in import sandbox_for
from activations.config import Project
from activations.runner import load_project
from activations.sandbox.server import start_in_background
from tests.engine.world import World


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    for name in ("ACTIVATIONS_VAR", "DBT_TARGET_PATH", "ACTIVATIONS_SANDBOX_URL"):
        monkeypatch.delenv(name, raising=False)
    World(tmp_path)
    return load_project(tmp_path)


def used(project: Project, url: str) -> str:
    at = replace(project, settings=project.settings.model_copy(update={"sandbox_url": url}))
    with sandbox_for(at, ["people"], notice=lambda _: None) as reachable:
        return reachable.sandbox_url


def test_the_running_sandbox_of_this_project_is_used(project: Project) -> None:
    with start_in_background(project.var / "sandbox") as running:
        assert used(project, running.url) == running.url


def test_another_projects_sandbox_is_left_alone(project: Project, tmp_path: Path) -> None:
    """It holds other people than our ledger says."""
    with start_in_background(tmp_path / "elsewhere") as other:
        assert used(project, other.url) != other.url


def test_without_one_a_sandbox_is_started(project: Project) -> None:
    assert used(project, "http://127.0.0.1:9").startswith("http://127.0.0.1:")
