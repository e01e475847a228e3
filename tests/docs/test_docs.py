"""Docs that cannot lie: links lead somewhere, commands exist, examples load."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from activations.cli.app import app
from activations.config import Guard
from activations.config.syncs import _SyncFile
from activations.sandbox.server import DEFAULT_PORT
from dagster_project import local
from tests.conftest import BuiltProject

ROOT = Path(__file__).parents[2]
CUT = "- - -"
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


def typed(section: str, project: BuiltProject) -> list[str]:
    """What every block of one section says when all are typed into one shell over the slice."""
    text = TEXTS["docs/proof.md"].split(f"\n## {section}\n")[1].split("\n## ")[0]
    script = f"echo; echo {CUT}\n".join(["cd $ROOT\n", *re.findall(r"```sh\n(.*?)```", text, re.S)])
    port = str(local.free_port(DEFAULT_PORT))
    for shown, ours in (
        (".venv/bin/activations", "$PYTHON -m activations"),
        ("activations sandbox", "activations sandbox --port $PORT"),
        (str(DEFAULT_PORT), "$PORT"),
        ("var/", "$ACTIVATIONS_VAR/"),
    ):
        script = script.replace(shown, ours)
    own = {"ROOT": str(ROOT), "PYTHON": sys.executable, "PORT": port}
    environment = {**project.environment, **own, "ACTIVATIONS_SANDBOX_URL": f"http://127.0.0.1:{port}"}
    log = project.var / "logs" / "typed.log"
    with local.child(["bash", "-c", script], environment, log) as shell:
        shell.wait(timeout=180)
    return log.read_text(encoding="utf-8").split(CUT)[1:]


def numbers(label: str, said: str) -> list[int]:
    """The row of that name of every table that was shown, its columns added up."""
    rows = re.findall(rf"│ {label} +│(.*)│", said)
    return [sum(int(cell.replace(",", "")) for cell in row.split("│")) for row in rows]


def test_what_readers_are_told_to_see_for_themselves_is_there_to_see(built_project: BuiltProject) -> None:
    _, kill, bad_rows, lost, wait = typed("See it yourself", built_project)

    assert re.findall(r"^(\S+) .*\.parquet$", kill, re.M) == ["-rw-------"]
    assert "interrupted" in kill
    killed, repaired = numbers("in doubt", kill)
    assert killed > 0
    assert repaired == 0
    assert numbers("delivered", kill)[-1] == killed
    assert kill.rstrip().endswith("total 0")

    assert '"rejected": 0' in bad_rows
    # Which rows the stand-in calls bad depends on this installation's key: seldom, a half has none.
    assert re.search(r'"requests": [35],', bad_rows)

    assert "older than the journal" in lost
    assert numbers("delivered", lost) == [numbers("unchanged", lost)[-1]] * 2
    assert numbers("added", lost)[-1] == 0

    assert len(re.findall(r"asked to wait \d\d s", wait)) == 2
    assert sum(numbers("delivered", wait)) == 0


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
