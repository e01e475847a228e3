"""Docs that cannot lie: links lead somewhere, commands exist, examples load."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from activations.cli.app import app
from activations.config import Guard
from activations.config.syncs import _SyncFile

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
TEXTS = {page.relative_to(ROOT).as_posix(): page.read_text(encoding="utf-8") for page in PAGES}


@pytest.mark.parametrize("page", TEXTS)
def test_links_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", TEXTS[page]):
        assert target.startswith("https://") or (ROOT / page).parent.joinpath(target).exists(), target


@pytest.mark.parametrize("page", TEXTS)
def test_commands_exist(page: str) -> None:
    known = set(get_command(app).commands)  # type: ignore[attr-defined]
    for command in re.findall(r"(?:\.venv/bin/|`)activations ([a-z]+)", TEXTS[page]):
        assert command in known, command
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    for target in re.findall(r"(?:^|`)make ([a-z-]+)", TEXTS[page], re.M):
        assert target in targets, target


def test_every_command_is_named_in_the_readme() -> None:
    for command in get_command(app).commands:  # type: ignore[attr-defined]
        assert f"activations {command}" in TEXTS["README.md"] or f"`{command}`" in TEXTS["README.md"], command


def test_the_example_of_a_sync_loads() -> None:
    [example] = re.findall(r"```yaml\n# Loyal.*?```", TEXTS["docs/writing-a-sync.md"], re.S)
    _SyncFile.model_validate(yaml.safe_load(example.removeprefix("```yaml").removesuffix("```")))


def test_every_key_of_a_sync_and_every_guard_is_explained_with_its_default() -> None:
    text = TEXTS["docs/writing-a-sync.md"]
    for key in _SyncFile.model_fields:
        assert f"`{key}`" in text or key == "description", key
    for name, field in Guard.model_fields.items():
        shown = f"`{name}`" if field.default is None else f"`{name}: {field.default}`"
        assert shown in text, shown


def test_the_project_names_no_machine_and_no_index() -> None:
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    absolute = re.compile(r"(?<![\w.])/(?:work|home|root|Users)/")
    for name in tracked:
        if (
            name.endswith((".py", ".md", ".yml", ".yaml", ".toml", ".sql", ".lock", "Makefile", ".ci/run"))
            and "tests/docs" not in name
        ):
            text = (ROOT / name).read_text(encoding="utf-8")
            assert not absolute.search(text), name
            assert "index-url http" not in text and "pypi.org/simple" not in text, name
