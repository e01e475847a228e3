"""Messages: at most once, whatever happens."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from activations.delivery import deliverer
from activations.destinations.webhook import SignedWebhook
from activations.errors import BatchRefused
from activations.model import Batch, Request, RunStatus
from tests.engine.world import (
    Killed,
    World,
    cannot_connect,
    killed_before,
    lost_after,
    lost_before,
    refuse_rows,
    status,
)


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


def refuse_late(self: SignedWebhook, batch: Batch) -> object:
    """A destination that takes the batch with its first request and refuses it with the second."""
    yield Request(
        method="POST",
        url="https://x",
        json_body={
            "changes": [
                {
                    "key": c.pseudonym,
                    "operation": c.operation.value,
                    "identifiers": dict(c.identifiers),
                    "fields": {},
                }
                for c in batch.changes
            ]
        },
    )
    yield Request(method="POST", url="https://x", json_body={"changes": []})
    raise BatchRefused("late")


def test_a_batch_refused_after_something_was_taken_is_in_doubt_not_repeated(
    messages: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SignedWebhook, "exchange", refuse_late)
    run = messages.add("a", "b").run()
    assert (run.in_doubt, sorted(email for _, _, email in messages.other.received)) == (
        2,
        ["a@example.com", "b@example.com"],
    )


def test_a_refusal_in_the_first_answer_took_nothing(messages: World) -> None:
    messages.other.always = status(404)
    run = messages.add("a").run()
    assert run.in_doubt == 0 and run.retryable + run.rejected == 1


def test_a_row_refused_at_the_claim_is_not_in_doubt_when_the_engine_dies(
    messages: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def suppress_meanwhile(self: deliverer.Deliverer, rows: object) -> bool:
        messages.engine().suppress(["b"], channel="all", reason="objection", source="test")
        return False

    messages.add("a", "b").other.script.append(killed_before)
    with monkeypatch.context() as patch:
        patch.setattr(deliverer.Deliverer, "_is_too_heavy", suppress_meanwhile)
        with pytest.raises(Killed):
            messages.run()
        patch.setattr("activations.run.is_gone", lambda _: True)
        [shown] = messages.engine().status()
        assert (shown.in_doubt, shown.suppressed) == (1, 1)
    run = messages.run()
    assert dict(run.counts.waiting_by_reason) == {"in_doubt": 1}
    assert dict(run.counts.ineligible_by_reason) == {"suppressed": 1}


def test_a_refused_message_with_a_corrected_address_stays_refused_until_somebody_asks(
    messages: World,
) -> None:
    messages.other.script.append(refuse_rows(lambda _: True))
    messages.add("a").run()
    messages.set("a", email="new@example.com")
    for _ in range(3):
        run = messages.run()
        assert (run.counts.waiting, run.rejected) == (1, 0)
        assert messages.query("select count(*) from activation.rejected_records") == [(1,)]
    assert messages.engine().retry("people", by="ops", note="corrected") == 1
    assert messages.run().delivered == 1
