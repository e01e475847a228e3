"""`kill -9` on the real command, and the next one puts everything right. `make kill` for many."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kill.schedule import Schedule
from tests.warehouses.server import Server

SEEDS = (0, 1, 2)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_killed_command_is_put_right_by_the_next(tmp_path: Path, seed: int) -> None:
    result = Schedule(seed, tmp_path, kills=2).play()
    assert result.violations == []
    assert result.counts["kills"] and result.counts["requests"]


def test_what_would_be_wrong_is_noticed(tmp_path: Path) -> None:
    """A judge that sees nothing would let everything pass."""
    schedule = Schedule(0, tmp_path, kills=0)
    assert schedule.play().violations == []
    gone, (message, _) = schedule.receiver.held.popitem(), schedule.receiver.deliveries.popitem()
    schedule.receiver.deliveries.update({message: 2})
    schedule.said.append("somebody@example.com")
    assert [found.partition(":")[0] for found in schedule.judge()] == ["I3", "I2", "P1"], gone


@pytest.mark.postgres
def test_a_killed_command_is_put_right_on_another_journal(tmp_path: Path, server: Server) -> None:
    with server.database() as name:
        result = Schedule(1, tmp_path, server.dsn(name), kills=1).play()
    assert result.violations == []
    assert result.counts["kills"] and result.counts["requests"]
