"""The real engine under seeded schedules of faults: no violation, and proof that something happened."""

from __future__ import annotations

import os

import pytest

from tests.simulation.campaign import Campaign, attempt
from tests.simulation.provider import FAULTS
from tests.simulation.schedule import Schedule

SEEDS = int(os.environ.get("SEEDS", "40"))
"""Few in an ordinary test run; `make simulate SEEDS=…` for more."""


@pytest.fixture(scope="module")
def campaign() -> Campaign:
    found = Campaign()
    for seed in range(SEEDS):
        found.add(attempt(seed))
    return found


def test_no_schedule_violates_an_invariant(campaign: Campaign) -> None:
    assert [f"seed {r.seed}: {v}" for r in campaign.failed for v in r.violations] == []


def test_work_happened(campaign: Campaign) -> None:
    """A simulation in which nothing happens finds nothing: everything it is about has to be in it."""
    counts = campaign.counts
    for name in (
        "requests",
        "warehouse_commit",
        "kill",
        "crash_before_journal_commit",
        "crash_after_journal_commit",
        "crash_after_warehouse_commit",
        "pause_before_send",
        "suppressed",
        "run_held",
        "released",
        "error_Fenced",
    ):
        assert counts[name], name
    kinds = {kind.__name__.strip("_") for kind in FAULTS}
    assert len(kinds & set(campaign.faults)) >= len(kinds) - 1, kinds - set(campaign.faults)


@pytest.mark.parametrize("seed", [6, 7])
def test_one_seed_is_one_schedule(seed: int) -> None:
    """One of several hosts, and one of one."""
    assert attempt(seed).counts == attempt(seed).counts


def test_personal_data_in_a_message_would_be_noticed() -> None:
    stage = Schedule(0).stage
    with stage.opened():
        stage.referee.said.append("somebody@example.com cannot be reached")
        stage.referee.final()
    assert "P1" in stage.result(0).invariants
