"""The worked example of docs/writing-a-segment.md, typed in as it stands there."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import duckdb
import pytest
from dbt.cli.main import dbtRunner

from activations.runner import Engine, load_project
from dagster_project.raw.load import Scale, load_all

ROOT = Path(__file__).parents[3]
FILE = re.compile(r"^`([\w/.]+\.(?:sql|yml))`\n\n```\w+\n(.*?)^```", re.MULTILINE | re.DOTALL)


def test_the_worked_example_builds_and_its_sync_is_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACTIVATIONS_VAR", str(tmp_path / "var"))
    files = _project_with_the_example(tmp_path)
    with duckdb.connect(str(tmp_path / "var" / "warehouse.duckdb")) as connection:
        load_all(connection, Scale.SLICE)
    engine = Engine(load_project(tmp_path))
    engine.prepare()

    folder = str(tmp_path / "dbt")
    flags = ["--project-dir", folder, "--profiles-dir", folder]
    built = dbtRunner().invoke(["--quiet", "run", *flags, "--select", "+aud_produce_buyers_gone_quiet"])
    assert built.success, built.exception

    assert len(files) == 5
    assert "produce_buyers_gone_quiet__klaviyo" in engine.check()
    with duckdb.connect(str(tmp_path / "var" / "warehouse.duckdb")) as connection:
        query = "select count(*) from audiences.aud_produce_buyers_gone_quiet"
        (members,) = connection.execute(query).fetchall()[0]
    assert members > 0


def _project_with_the_example(root: Path) -> list[str]:
    """A copy of the project with the files of the page in their places; returns those."""
    shutil.copytree(ROOT / "dbt", root / "dbt", ignore=shutil.ignore_patterns("target", "logs"))
    shutil.copytree(
        ROOT / "activations", root / "activations", ignore=shutil.ignore_patterns("*.py", "__pycache__")
    )
    shutil.copy(ROOT / "pyproject.toml", root)
    (root / "var").mkdir()
    page = (ROOT / "docs" / "writing-a-segment.md").read_text()
    files = FILE.findall(page)
    for name, text in files:
        (root / name).write_text(text)
    return [name for name, _ in files]
