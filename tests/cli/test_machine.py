"""What the machine does to us is one line, never a traceback: the real command, in a process of its own where it matters."""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from activations.cli import app as cli
from activations.cli.output import Exit
from tests.cli.test_commands import data, invoke, reachable
from tests.engine.world import World


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return reachable(tmp_path, monkeypatch, "mirror").build()


def command(
    *arguments: str, stdout: int | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "activations", *arguments],
        stdout=subprocess.PIPE if stdout is None else stdout,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
        timeout=60,
        check=False,
    )


def test_a_disk_that_fills_up_fails_one_sync_in_one_line(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.add("a").build()
    world.sync_file.with_name("aaa.yml").write_text(world.sync_file.read_text())
    synced, full = os.fsync, [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))]

    def fsync(descriptor: int) -> None:
        if full:
            raise full.pop()
        synced(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    done = invoke("sync", "--json")
    failed, other = json.loads(done.stdout)
    assert done.exit_code == Exit.FAILED
    assert failed == {
        "sync": "aaa",
        "run_status": "failed",
        "error": "the disk that holds var/plans is full. Free it and run this again",
    }
    assert other["run_status"] == "succeeded"
    assert {run["sync"]: run["error"] for run in data("status")} == {"aaa": failed["error"], "people": None}


def test_a_full_disk_while_the_ledger_is_written_is_the_next_runs_work(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.add("a").build()

    make = tempfile.mkdtemp

    def full_after_sending(*names: str | None) -> str:
        if world.other.requests:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return make(*names)

    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "mkdtemp", full_after_sending)
        [run] = data("sync")
    assert "the next run does: the disk that holds" in run["error"]
    assert [run["delivered"] for run in data("sync")] == [0]
    assert world.query("select count(*) from activation.sync_snapshot") == [(1,)]


@pytest.mark.parametrize("words", [["status"], ["plan"], ["sync"], ["init"], ["suppress", "--reason", "x"]])
def test_a_state_folder_that_cannot_be_made_is_one_line(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    (world.root / "file").touch()
    monkeypatch.setenv("ACTIVATIONS_VAR", str(world.root / "file/var"))
    monkeypatch.setattr("sys.argv", ["activations", *words])
    monkeypatch.setattr("sys.stdin", ["a"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capsys.readouterr().err
    assert ended.value.code == Exit.FAILED
    assert said.count("\n") == 1 and "file/var" in said


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_output_that_cannot_be_written_is_one_line(world: World, flags: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = command("check", *flags, stdout=full.fileno())
    assert (done.returncode, done.stderr.count("\n")) == (Exit.FAILED, 1)
    assert "the disk that holds the output is full" in done.stderr


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_a_reader_that_has_seen_enough_is_told_nothing(world: World, flags: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = command("check", *flags, stdout=writing)
    os.close(writing)
    assert (done.returncode, done.stderr) == (Exit.FAILED, "")


@pytest.mark.parametrize("words", [["status"], ["suppress", "--help"]])
def test_a_terminal_that_knows_only_ascii_is_spoken_to(world: World, words: list[str]) -> None:
    done = command(*words, LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert (done.returncode, done.stderr) == (Exit.DONE, "")
    assert done.stdout.isascii()


def test_a_port_that_is_taken_is_named_before_anything_is_promised(world: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = command("sandbox", "--port", port, "--json")
    assert done.returncode == Exit.FAILED
    assert f"cannot have port {port}" in json.loads(done.stdout)["error"] and done.stderr == ""
    assert invoke("sandbox", "--port", "99999").exit_code == Exit.USAGE


def test_the_version_is_said() -> None:
    assert invoke("--version").stdout.startswith("activations 0.")
