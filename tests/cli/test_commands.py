"""The command line as a program and as a person meet it: exit codes, JSON, and one line of error."""

from __future__ import annotations

import json
import signal
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

from activations.cli import app as cli
from activations.cli import context
from activations.cli.output import Exit
from activations.model import Request, Response
from activations.runner import Engine
from tests.engine.test_feedback import TEXTS
from tests.engine.world import OtherSide, World, cannot_connect, lost_after, refuse_rows
from tests.warehouses.stores import locked


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return reachable(tmp_path, monkeypatch, "mirror")


@pytest.fixture
def messages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return reachable(tmp_path, monkeypatch, "append")


def reachable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, **sync: Any) -> World:
    """A world whose other side the commands reach: they build their own engine, we hand it our transport and clock."""
    monkeypatch.delenv("ACTIVATIONS_VAR", raising=False)
    monkeypatch.delenv("DBT_TARGET_PATH", raising=False)
    monkeypatch.setenv("ACTIVATIONS_SANDBOX_URL", "http://127.0.0.1:9")
    world = World(tmp_path, mode=mode, **({"guard": {"floor_rows": 0}} | sync))
    monkeypatch.setattr(
        context, "Engine", lambda project: Engine(project, clock=world.clock, transport=world._transport)
    )
    monkeypatch.setenv("ACTIVATIONS_PROJECT_DIR", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "160")
    return world


def invoke(*arguments: str, stdin: str = "") -> Result:
    return CliRunner().invoke(cli.app, list(arguments), input=stdin)


def data(*arguments: str) -> Any:
    return json.loads(invoke(*arguments, "--json").stdout)


def test_plan_sync_status_agree(world: World) -> None:
    world.add("a", "b").build()
    [plan] = data("plan")
    assert (plan["added"], plan["held_reason"]) == (2, None)
    done = invoke("sync", "--json")
    assert done.exit_code == Exit.DONE
    [run], [status] = json.loads(done.stdout), data("status")
    assert run == status
    assert (run["delivered"], run["run_status"]) == (2, "succeeded")


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda w: setattr(w.other, "always", refuse_rows(lambda _: True)), Exit.PARTIAL),
        (lambda w: setattr(w.other, "always", cannot_connect), Exit.FAILED),
    ],
)
def test_a_run_that_did_not_go_through_is_not_exit_zero(world: World, spoil: Any, code: int) -> None:
    spoil(world)
    world.add("a").build()
    assert invoke("sync").exit_code == code


def test_after_ctrl_c_no_other_sync_is_begun(world: World) -> None:
    world.sync_file.with_name("second.yml").write_text(world.sync_file.read_text())

    def interrupted(other: OtherSide, request: Request) -> Response:
        signal.raise_signal(signal.SIGINT)
        return other.accept(request)

    world.other.script.append(interrupted)
    world.add("a").build()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        done = invoke("sync", "--json")
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    first, second = json.loads(done.stdout)
    assert (done.exit_code, first["delivered"], second["error"]) == (
        Exit.FAILED,
        1,
        "stopped before it began",
    )
    assert [run["run_status"] for run in data("status")] == ["succeeded", "never_run"]


def test_a_held_run_says_why_and_what_to_do_and_can_be_released(world: World) -> None:
    world.add(*"abcd").run()
    world.drop("a", "b").build()
    held = invoke("sync")
    assert held.exit_code == Exit.HELD
    assert "max_removed_share" in held.stderr and "activations release people" in held.stderr
    assert invoke("release", "people", "--by", " ").exception is not None
    assert invoke("release", "people", "--by", "ops", "--note", "closing down").exit_code == 0
    assert invoke("sync").exit_code == Exit.DONE
    assert data("audit") == {"lines": 1, "intact": True}


def test_a_sync_that_cannot_be_planned_fails_alone(world: World) -> None:
    world.add("a").build()
    broken = world.sync_file.with_name("aaa_broken.yml")
    broken.write_text(world.sync_file.read_text() + "holdout: no_such\n")
    done = invoke("sync")
    assert done.exit_code == Exit.FAILED
    assert "no_such" in done.stderr
    assert world.other.emails == {"a@example.com"}
    assert {run["sync"]: run["run_status"] for run in data("status")} == {
        "aaa_broken": "failed",
        "people": "succeeded",
    }


def test_an_error_is_one_line_and_in_json_one_object(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    world.configure(modee="mirror")
    for flags in ([], ["--json"]):
        monkeypatch.setattr("sys.argv", ["activations", "check", *flags])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == Exit.FAILED
        shown = capsys.readouterr()
        text = json.loads(shown.out)["error"] if flags else shown.err
        assert "Did you mean `mode`?" in text
        assert "Traceback" not in shown.err


def test_an_unknown_sync_lists_the_known_ones(world: World) -> None:
    found = invoke("plan", "nobody")
    assert "Known: people" in str(found.exception)


def test_status_and_sync_remind_of_people_whose_sync_has_no_file(world: World) -> None:
    world.add("a").run()
    world.sync_file.rename(world.sync_file.with_name("persons.yml"))
    for command in ("status", "sync"):
        shown = invoke(command, "--json")
        assert [run["sync"] for run in json.loads(shown.stdout)] == ["persons"]
        assert "`people` has no file any more" in shown.stderr
    assert invoke("forget", "people", "--by", "ops").stdout == "Forgotten.\n"
    assert "no file" not in invoke("status").output


def test_suppressing_reads_standard_input_and_shows_nobody(world: World) -> None:
    world.add("a", "b").run()
    done = invoke("suppress", "--reason", "objection", stdin="a@example.com\n")
    assert done.exit_code == 0 and "a@example.com" not in done.output
    assert data("plan")[0]["removed"] == 1
    assert isinstance(
        invoke("suppress", "--reason", "x", "--channel", "fax", stdin="a\n").exception, Exception
    )


@pytest.mark.parametrize(
    "line", ["a b c", "a@b@c", "@example.com", "+49 170 1234567", "+49170x", "m\ufffdller@example.com"]
)
def test_who_can_match_nobody_is_refused_by_line_and_not_shown(world: World, line: str) -> None:
    world.add("a", "b").run()
    said = str(invoke("suppress", "--reason", "objection", stdin=f"a\n\n{line}\n").exception)
    assert "in line 3. Write one a line" in said and line not in said
    assert data("plan")[0]["removed"] == 0, "nobody of the others either"


@pytest.mark.parametrize("line", ["a", "a@example.com", "+491701234567", "crm-1/42"])
def test_an_email_a_phone_and_an_id_are_taken(world: World, line: str) -> None:
    world.build()
    said = invoke("suppress", "--reason", "objection", stdin=line).stdout
    assert said.startswith("1 identifier suppressed on all, 0 of people the warehouse knows.")
    assert invoke("suppress", "--reason", "mistake", "--lift", stdin=line).stdout.startswith(
        "1 suppression lifted"
    )


def test_callbacks_are_read_from_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here they are of nobody; what they settle: tests/engine/test_feedback.py."""
    world = reachable(tmp_path, monkeypatch, "append", **TEXTS)
    world.build()
    line = json.dumps({"url": "https://hooks.example.com/twilio?message=1&run=2", "headers": {}, "body": ""})
    done = invoke("feedback", "hook", "--json", stdin=f"{line}\n\n{line}\n")
    assert json.loads(done.stdout) == {"callbacks": 2, "ignored": 2, "confirmed": 0}
    said = " ".join(invoke("feedback", "hook", stdin=line).stdout.split())
    assert said == (
        "1 callback read, 0 messages in doubt settled; not signed by the provider or about no message of ours: 1."
    )


def test_half_a_no_is_not_reported_as_a_whole_one(world: World) -> None:
    world.add("a").build()
    with locked(world.root / "var"):
        done = invoke("suppress", "--reason", "objection", "--json", stdin="+491701234567\n")
    assert done.exit_code == Exit.PARTIAL
    assert "holds warehouse.duckdb" in json.loads(done.stdout)["unasked"]
    assert "Give the same lines again" in done.stderr and "+49" not in done.output


@pytest.mark.parametrize("command", ["retry", "forget"])
def test_a_name_in_another_encoding_is_kept_as_far_as_it_can_be(world: World, command: str) -> None:
    world.add("a").run()
    assert invoke(command, "people", "--by", "M\udcfcller", "--note", "\udcff").exit_code == Exit.DONE


def test_a_no_for_a_reason_in_another_encoding_is_heard(world: World) -> None:
    world.add("a").build()
    assert invoke("suppress", "--reason", "f\udcfcr immer", stdin="a\n").exit_code == Exit.DONE
    assert data("plan")[0]["added"] == 0


def test_suppressing_says_from_when_it_holds(world: World) -> None:
    said = invoke("suppress", "--reason", "objection", stdin="a\n").stdout
    assert "Nothing leaves for them after 2026-01-05 12:00:00 UTC but removals" in said
    done = json.loads(invoke("suppress", "--reason", "objection", "--json", stdin="a\n").stdout)
    assert datetime.fromisoformat(done["effective_at"]) < world.clock.now() + timedelta(seconds=1)


def test_explain_says_why(world: World) -> None:
    world.add("a", "b").block("b", "consent").run()
    assert data("explain", "a")[0]["held_by_destination"]
    [why] = data("explain", "b")
    assert (why["verdict"], why["blockers"], why["held_by_destination"]) == (
        "ineligible:consent",
        ["consent"],
        False,
    )
    assert "ineligible:consent" in invoke("explain", "b").stdout


def test_explaining_nobody_says_so(world: World) -> None:
    world.add("a").build()
    assert "dbt knows nobody of this id" in str(invoke("explain", "nobody").exception)
    world.run()
    del world.eligible["a"]
    world.drop("a").build()
    assert data("explain", "a")[0]["held_by_destination"]


def test_exposures_are_written_checked_and_stale(world: World) -> None:
    (world.root / "dbt/models").mkdir()
    assert isinstance(invoke("exposures", "--check").exception, Exception)
    assert invoke("exposures").exit_code == 0
    assert data("exposures", "--check")["state"] == "up to date"
    world.configure(owner="somebody else")
    assert "activations exposures" in str(invoke("exposures", "--check").exception)


def test_markup_in_names_has_no_power_over_the_terminal(world: World) -> None:
    world.add("[bold]x").build()
    assert "[bold]x" in invoke("explain", "[bold]x").stdout


def test_a_plan_is_written_down_and_applied(world: World, tmp_path: Path) -> None:
    world.add("a", "b").build()
    file = str(tmp_path / "people.json")
    assert "activations apply" in invoke("plan", "people", "--out", file).stdout
    assert [run["delivered"] for run in data("apply", file)] == [2]
    again = invoke("apply", file)
    assert again.exit_code == Exit.FAILED
    assert "another run moved the ledger" in again.stderr


def test_a_plan_replaces_an_older_plan_and_no_other_file(world: World, tmp_path: Path) -> None:
    world.add("a").build()
    mine, plan = tmp_path / "notes.yml", tmp_path / "people.json"
    mine.write_text("kept: true")
    for place, why in (
        (mine, "is no plan, so it is not replaced"),
        (tmp_path, "is no plan"),
        (Path(), "is no plan"),
        (tmp_path / "no/where.json", "there is no folder"),
    ):
        assert why in str(invoke("plan", "people", "--out", str(place)).exception)
    assert mine.read_text() == "kept: true"
    (tmp_path / "people.json.draft").write_text("somebody else's")
    first, second = (invoke("plan", "people", "--out", str(plan)) and plan.read_text() for _ in range(2))
    assert first != second
    assert {path.name for path in tmp_path.glob("*.*")} >= {"notes.yml", "people.json", "people.json.draft"}


def test_a_plan_that_cannot_be_written_leaves_nothing_behind(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    world.add("a").build()
    (folder := tmp_path / "plans").mkdir()
    monkeypatch.setattr(Path, "replace", full)
    assert "cannot be written" in str(invoke("plan", "people", "--out", str(folder / "p.json")).exception)
    assert list(folder.iterdir()) == []


def test_a_held_plan_is_released_by_its_file(world: World, tmp_path: Path) -> None:
    world.add(*"abcd").run()
    world.drop("a", "b").build()
    file = str(tmp_path / "people.json")
    invoke("plan", "people", "--out", file)
    assert invoke("apply", file).exit_code == Exit.HELD
    assert invoke("release", "--plan", file, "--by", "ops").exit_code == Exit.DONE
    assert invoke("apply", file).exit_code == Exit.DONE


def test_a_release_leaves_an_earlier_one_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = reachable(tmp_path, monkeypatch, "mirror", guard={"max_added_rows": 1, "floor_rows": 1000})
    one, two = (str(tmp_path / name) for name in ("one.json", "two.json"))
    for people, file in ((("a", "b"), one), (("c",), two)):
        world.add(*people).build()
        invoke("plan", "people", "--out", file)
        assert invoke("release", "--plan", file, "--by", "ops").exit_code == Exit.DONE
        world.clock.sleep(1)
    world.drop("c").build()
    assert invoke("apply", one).exit_code == Exit.DONE


def test_one_plan_a_file_and_one_thing_to_release(world: World, tmp_path: Path) -> None:
    world.sync_file.with_name("second.yml").write_text(world.sync_file.read_text())
    assert invoke("plan", "--out", str(tmp_path / "x.json")).exit_code == Exit.USAGE
    assert invoke("release", "--by", "ops").exit_code == Exit.USAGE
    assert invoke("release", "people", "--plan", "x", "--by", "ops").exit_code == Exit.USAGE


def test_a_message_in_doubt_is_listed_and_settled(messages: World) -> None:
    messages.other.script.append(lost_after)
    assert messages.add("a").run().in_doubt == 1
    [message] = data("resolve", "people")
    assert "timeout" in invoke("resolve", "people").stdout
    assert "how you know" in str(
        invoke("resolve", "people", "--delivered", message["handle"], "--by", "x").exception
    )
    assert data("resolve", "people", "--delivered", message["handle"], "--by", "ops", "--note", "log") == []
    assert "0 refused rows" in invoke("retry", "people", "--by", "ops").stdout


@pytest.mark.parametrize("setting", ["warehouse", "journal"])
def test_a_missing_package_is_named_with_the_command_that_installs_it(
    world: World, monkeypatch: pytest.MonkeyPatch, setting: str
) -> None:
    module = {"warehouse": "activations.warehouses.postgres", "journal": "activations.journal.postgres"}
    monkeypatch.delitem(sys.modules, module[setting], raising=False)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    file = world.root / "activations/project.yml"
    file.write_text(
        yaml.safe_dump(yaml.safe_load(file.read_text()) | {setting: {"type": "postgres", "dsn": "env:DSN"}})
    )
    monkeypatch.setenv("DSN", "postgresql://localhost/none")
    said = str(invoke("plan").exception)
    assert said.startswith(f"the {setting} is on Postgres, and the package psycopg is not installed")
    assert said.endswith("`pip install -r requirements-postgres.lock`")
