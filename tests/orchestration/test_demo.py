"""What a person sees of a run, read from the log of a real one."""

from __future__ import annotations

import io
import os
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import dagster as dg
import pytest
from rich.console import Console

from activations.config import Project, Sync
from dagster_project import demo, local
from dagster_project.defs.checks import CheckError
from dagster_project.progress import RunView, follow, show
from tests.orchestration.engine import a_run


@dg.asset(key=["raw", "people"])
def people() -> dg.MaterializeResult:
    return dg.MaterializeResult(metadata={"dagster/row_count": 1200})


@dg.asset(key=["audiences", "everybody"], deps=[people])
def everybody() -> None: ...


@dg.asset(key=["syncs", "held"], deps=[everybody])
def held() -> None:
    raise dg.Failure("held is HELD: removes 90 % of what is there")


@dg.asset(key=["syncs", "broken"], deps=[everybody])
def broken() -> None:
    raise CheckError("a rule could not be evaluated. Compare its columns")


@dg.asset_check(asset=everybody)
def sound() -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=True)


def watch(instance: dg.DagsterInstance, *assets: object) -> tuple[RunView, str]:
    result = dg.materialize([*assets], instance=instance, raise_on_error=False)
    shown = io.StringIO()
    looks = follow(instance, result.run_id, is_running=lambda: False, wait=lambda: None)
    return show(Console(file=shown, width=80), looks), shown.getvalue()


def test_progress_counts_assets_by_layer(instance: dg.DagsterInstance) -> None:
    view, shown = watch(instance, people, everybody, sound)
    assert [(layer.name, layer.built, layer.total) for layer in view.in_order] == [
        ("raw", 1, 1),
        ("audiences", 1, 1),
    ]
    assert view.layers["raw"].rows == 1200
    assert view.checks_passed == 1
    assert not view.problems
    assert shown.index("raw") < shown.index("audiences")


def test_a_failed_run_names_each_problem_in_its_own_words(instance: dg.DagsterInstance) -> None:
    view, _ = watch(instance, people, everybody, held, broken)
    assert sorted(view.problems) == [
        "syncs__broken: a rule could not be evaluated. Compare its columns",
        "syncs__held: held is HELD: removes 90 % of what is there",
    ]
    assert not view.layers["syncs"].is_done


def test_of_a_failed_dbt_only_its_own_errors_are_told(instance: dg.DagsterInstance) -> None:
    story = "The dbt CLI process with command\n\n`dbt build`\n\nErrors parsed from dbt logs:\n\n\x1b[31mmodel x\x1b[0m fails\n"

    @dg.asset(key=["staging", "x"])
    def x() -> None:
        raise dg.Failure(story)

    view, _ = watch(instance, x)
    assert view.problems == ["staging__x: model x fails"]


def test_the_report_shows_every_sync_and_what_comes_next(a_sync: Sync) -> None:
    runs = [a_run(a_sync, sync=f"audience_{n}__klaviyo") for n in range(4)]
    shown = io.StringIO()
    demo.report(Console(file=shown, width=80), runs, "0a" * 16, seconds=12.3)
    assert max(map(len, shown.getvalue().splitlines())) <= 80
    assert "160 rows delivered" in shown.getvalue()
    assert "make dev" in shown.getvalue()
    assert f"activations explain {'0a' * 16}\n" in shown.getvalue()


def test_a_second_demo_has_nothing_to_promise(a_sync: Sync) -> None:
    shown = io.StringIO()
    demo.report(Console(file=shown, width=80), [a_run(a_sync, delivered=0)], "0a" * 16, seconds=9)
    assert "0 rows delivered" in shown.getvalue()
    assert "again" not in shown.getvalue()


def test_a_problem_ends_the_demo_with_an_error(instance: dg.DagsterInstance) -> None:
    view, _ = watch(instance, people, everybody, held)
    shown = io.StringIO()
    assert demo.report_problem(Console(file=shown, width=200), view) == 1
    assert "removes 90 %" in shown.getvalue()


def test_the_launcher_puts_the_instance_below_the_state_folder(project: Project, tmp_path: Path) -> None:
    env = local.environment(replace(project, var=tmp_path), "http://127.0.0.1:1")
    assert env["DAGSTER_HOME"] == str(tmp_path / "dagster")
    assert (tmp_path / "dagster" / "dagster.yaml").read_text() == local.SETTINGS.read_text()
    assert env["ACTIVATIONS_VAR"] == str(tmp_path)
    assert env["ACTIVATIONS_SANDBOX_URL"] == "http://127.0.0.1:1"


def test_dagsters_stores_are_made_before_a_second_process_opens_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dagster = tmp_path / "dagster"
    dagster.write_text('#!/bin/sh\nls "$DAGSTER_HOME/schedules"\n')
    dagster.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(dagster))
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    with pytest.raises(local.LaunchError, match="schedules.db"):
        demo.run_pipeline(Console(file=io.StringIO()), tmp_path / "demo.log")


def test_a_taken_port_gives_way_to_the_next() -> None:
    with socket.socket() as taken:
        taken.bind((local.LOOPBACK, 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert local.free_port(port) > port


def test_a_stopped_child_takes_its_own_children_along(tmp_path: Path) -> None:
    program = (
        "import subprocess, sys\n"
        "inner = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print(inner.pid, flush=True)\n"
        "inner.wait()\n"
    )
    log = tmp_path / "child.log"
    with local.child([sys.executable, "-c", program], os.environ, log):
        assert eventually(lambda: log.read_text().endswith("\n"))
    pid = int(log.read_text().splitlines()[0])
    assert eventually(lambda: not is_alive(pid))


def eventually(condition: Callable[[], bool]) -> bool:
    return any(condition() or time.sleep(0.1) for _ in range(100))


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
