"""Tables at every width."""

from __future__ import annotations

from datetime import datetime
from io import StringIO

import pytest
from rich.console import Console

from activations.cli.tables import explanation_table, run_table
from activations.explain import Explanation
from activations.model import Channel, Counts, RunStatus, SyncMode, SyncRun

NAMES = [
    "basket_reminder__twilio",
    "coupon_responders__webhook",
    "loyal_customers__klaviyo",
    "win_back__meta",
]


def drawn(table: object, width: int) -> str:
    console = Console(file=StringIO(), width=width)
    console.print(table)
    return console.file.getvalue()  # type: ignore[attr-defined]


def run(name: str) -> SyncRun:
    return SyncRun(
        run_id="r",
        sync=name,
        audience="aud",
        destination="d",
        channel=Channel.EMAIL,
        purpose="marketing",
        mode=SyncMode.MIRROR,
        run_status=RunStatus.SUCCEEDED,
        plan_id="",
        counts=Counts(),
        started_at=None,
    )


def explanation(name: str) -> Explanation:
    return Explanation(
        sync=name,
        in_audience=True,
        verdict="ineligible:no_consent",
        next_operation=None,
        blockers=("no_consent", "sms_quiet_hours"),
        is_deferred=False,
        consent_event_id="consent-000123",
        evaluated_at=datetime(2026, 1, 5),
        held_by_destination=False,
        acknowledged_at=None,
        open_state=None,
    )


@pytest.mark.parametrize(("width", "tables"), [(30, 4), (60, 2), (80, 2), (100, 1), (200, 1)])
def test_no_name_is_cut_and_what_does_not_fit_goes_below(width: int, tables: int) -> None:
    text = drawn(run_table([run(name) for name in NAMES]), width)
    assert text.count("destination") == tables
    assert text.count("Last run of every sync") == 1
    for name in NAMES if width > 30 else []:
        audience, destination = name.split("__")
        assert f"{audience} ┃" in text and f"→ {destination} ┃" in text
    assert max(map(len, text.splitlines())) <= width


@pytest.mark.parametrize("width", [60, 80, 200])
def test_rules_and_events_are_readable_at_every_width(width: int) -> None:
    text = drawn(explanation_table("p1", [explanation(name) for name in NAMES]), width)
    for word in ("ineligible:no_consent", "sms_quiet_hours", "consent-000123"):
        assert text.count(word) == len(NAMES)
    assert max(map(len, text.splitlines())) <= width


def test_without_a_sync_there_is_still_an_answer() -> None:
    assert drawn(run_table([]), 80).split()[:5] == ["Last", "run", "of", "every", "sync"]
