"""What the machine does to the real command: a full disk, files nobody may write, two commands at once."""

from __future__ import annotations

import ctypes
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.kill.schedule import Schedule

_PR_CAPBSET_DROP, _CAP_DAC_OVERRIDE = 24, 1
COMMAND = [sys.executable, "-m", "activations", "sync"]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Schedule]:
    """A built project that never ran, and a receiver without faults."""
    schedule = Schedule(3, tmp_path)
    monkeypatch.delenv("ACTIVATIONS_VAR", raising=False)
    monkeypatch.delenv("DBT_TARGET_PATH", raising=False)
    monkeypatch.setenv("ACTIVATIONS_SANDBOX_URL", schedule.receiver.url)
    schedule.receiver.fault_rate = 0.0
    schedule.prepare()
    yield schedule
    schedule.receiver.close()


def _command(
    world: Schedule, before: Callable[[], object] = lambda: None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        COMMAND, cwd=world.root, capture_output=True, text=True, preexec_fn=before, check=False
    )


def _told(run: subprocess.CompletedProcess[str]) -> str:
    """What it said, which is never a traceback."""
    text = " ".join((run.stdout + run.stderr).split())
    assert "Traceback" not in text, text
    return text


@pytest.mark.parametrize("kilobytes", [0, 16, 64])
def test_a_full_disk_loses_nothing(world: Schedule, kilobytes: int) -> None:
    """No file grows beyond this, wherever in the run that is."""
    run = _command(
        world, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (kilobytes << 10, kilobytes << 10))
    )
    assert run.returncode, "it says that it failed"
    _told(run)
    assert world.finish() == []


def _obey_permissions() -> None:
    """Root too."""
    ctypes.CDLL(None).prctl(_PR_CAPBSET_DROP, _CAP_DAC_OVERRIDE, 0, 0, 0)


def test_a_journal_that_cannot_be_written_stops_everything(world: Schedule) -> None:
    journal = world.root / "var/journal.sqlite3"
    journal.chmod(0o400)
    run = _command(world, _obey_permissions)
    assert run.returncode == 1
    assert "the journal journal.sqlite3 cannot be opened (Permission denied)" in _told(run)
    assert world.receiver.requests == 0
    journal.chmod(0o600)
    assert world.finish() == []


def test_a_warehouse_that_cannot_be_written_is_merged_later(world: Schedule) -> None:
    warehouse = world.root / "var/warehouse.duckdb"
    warehouse.chmod(0o400)
    run = _command(world, _obey_permissions)
    assert "the ledger could not be brought up to date" in _told(run)
    sent = world.receiver.requests
    warehouse.chmod(0o600)
    assert world.finish() == []
    assert sent and world.receiver.requests == sent, "nothing was sent again"


def test_two_commands_at_once_send_everything_once(world: Schedule) -> None:
    both = [
        subprocess.Popen(COMMAND, cwd=world.root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for _ in range(2)
    ]
    said = [" ".join(process.communicate()[0].split()) for process in both]
    assert not any("Traceback" in text for text in said), said
    for process, text in zip(both, said, strict=True):
        assert process.returncode == 0 or "another process is running the sync" in text
    assert world.finish() == []
    assert set(world.receiver.deliveries.values()) == {1}
