"""Messages: at most once, whatever happens."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from activations.model import RunStatus
from tests.engine.world import World, cannot_connect, lost_after, lost_before, refuse_rows, status


@pytest.fixture
def messages(make_world: Callable[..., World]) -> World:
    return make_world(mode="append")


def deliveries(world: World) -> list[str]:
    return sorted(email for _, _, email in world.other.received)


def test_each_occurrence_is_sent_once_and_never_again(messages: World) -> None:
    messages.add("a", "b").run()
    assert messages.run().counts.planned == 0
    assert messages.set("a", event_id="a-2").run().delivered == 1
    assert deliveries(messages) == ["a@example.com", "a@example.com", "b@example.com"]


def test_a_changed_address_does_not_repeat_an_occurrence(messages: World) -> None:
    messages.add("a").run()
    assert messages.set("a", email="new@example.com").run().counts.planned == 0


@pytest.mark.parametrize("fault", [lost_before, lost_after, status(500), status(503)])
def test_a_message_in_doubt_is_never_sent_again(messages: World, fault: object) -> None:
    messages.other.script.append(fault)  # type: ignore[arg-type]
    assert messages.add("a").run().in_doubt == 1
    before = messages.other.requests
    for _ in range(3):
        messages.clock.sleep(3600)
        run = messages.run()
        assert dict(run.counts.waiting_by_reason) == {"in_doubt": 1}
    assert messages.other.requests == before


def test_a_message_that_provably_did_not_leave_is_sent_later(messages: World) -> None:
    messages.other.always = cannot_connect
    assert messages.add("a").run().run_status is RunStatus.FAILED
    messages.other.always = None
    assert messages.run().delivered == 1
    assert deliveries(messages) == ["a@example.com"]


def test_a_lost_snapshot_does_not_repeat_a_message(messages: World) -> None:
    """The ledger may be restored from an old backup: the journal's door stays shut."""
    messages.add("a").run()
    messages.store.execute("delete from activation.sync_snapshot")
    run = messages.run()
    assert (run.counts.added, run.delivered) == (1, 1), "planned again, and known as sent"
    assert deliveries(messages) == ["a@example.com"]


def test_a_refused_message_waits_for_a_person(messages: World) -> None:
    messages.other.always = refuse_rows(lambda _: True)
    assert messages.add("a").run().rejected == 1
    messages.other.always = None
    assert dict(messages.set("a", score=5).run().counts.waiting_by_reason) == {"rejected": 1}


def test_quiet_hours_defer_and_do_not_drop(messages: World) -> None:
    run = messages.add("a").block("a", "deferred").run()
    assert (run.counts.waiting, run.counts.planned) == (1, 0)
    messages.eligible["a"] = None
    assert messages.run().delivered == 1


def test_nobody_leaves_a_message_sync(messages: World) -> None:
    messages.add("a", "b").run()
    assert messages.drop("a", "b").run().counts.planned == 0


def test_a_deferral_concerns_only_what_was_not_sent_yet(messages: World) -> None:
    messages.add("a").run()
    run = messages.block("a", "deferred").run()
    assert (run.counts.unchanged, run.counts.waiting) == (1, 0)
