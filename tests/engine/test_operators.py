"""What a person may decide: try again, settle a doubt, send everything again. Everything of it is audited."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import pytest
import yaml

from activations.errors import ActivationsError
from activations.model import RunStatus
from tests.engine.world import Answer, Killed, World, killed_after, lost_after, lost_before, refuse_rows

BY = {"by": "ops", "note": "looked into it"}


@pytest.fixture
def messages(make_world: Callable[..., World]) -> World:
    return make_world(mode="append")


def in_doubt(world: World, fault: object) -> str:
    """One message in doubt; its handle."""
    world.other.script.append(fault)  # type: ignore[arg-type]
    assert world.add("a").run().in_doubt == 1
    [message] = world.engine().in_doubt("people")
    return message.handle


def test_refused_rows_are_tried_again_on_request(world: World) -> None:
    world.other.always = refuse_rows(lambda c: c["operation"] == "added")
    assert world.add("a", "b").run().rejected == 2
    world.other.always = None
    assert world.run().counts.planned == 0, "nobody asked yet"
    assert world.engine().retry("people", **BY) == 2
    assert world.run().delivered == 2
    assert world.query("select count(*) from activation.rejected_records") == [(0,)]
    assert world.engine().retry("people", **BY) == 0


def test_a_row_that_is_refused_again_waits_again(world: World) -> None:
    world.other.always = refuse_rows(lambda _: True)
    world.add("a").run()
    world.engine().retry("people", **BY)
    assert world.run().rejected == 1
    assert world.run().counts.planned == 0
    assert world.query("select attempts from activation.rejected_records") == [(2,)]


def test_a_refused_message_is_tried_again_on_request(messages: World) -> None:
    messages.other.always = refuse_rows(lambda _: True)
    messages.add("a").run()
    messages.other.always = None
    assert messages.engine().retry("people", **BY) == 1
    assert messages.run().delivered == 1
    assert len(messages.other.received) == 1


def test_a_message_in_doubt_shows_when_why_and_never_whom(messages: World) -> None:
    handle = in_doubt(messages, lost_after)
    [message] = messages.engine().in_doubt("people")
    assert (message.reason, message.provider_id) == ("timeout", None)
    assert handle != "a" and "example" not in str(message)


def test_a_message_that_did_arrive_is_settled_and_never_sent_again(messages: World) -> None:
    handle = in_doubt(messages, lost_after)
    messages.engine().mark_delivered("people", handle, **BY)
    assert messages.engine().in_doubt("people") == []
    run = messages.run()
    assert (run.run_status, run.in_doubt, run.requests) == (RunStatus.SUCCEEDED, 0, 0)
    assert messages.run().counts.unchanged == 1
    assert len(messages.other.received) == 1


def test_a_message_is_sent_again_by_two_people_and_once(messages: World) -> None:
    handle = in_doubt(messages, lost_before)
    with pytest.raises(ActivationsError, match="second"):
        messages.engine().resend("people", handle, second="ops", **BY)
    messages.engine().resend("people", handle, second="boss", **BY)
    assert messages.run().delivered == 1
    assert messages.run().counts.planned == 0
    assert len(messages.other.received) == 1


def test_a_resent_message_may_be_in_doubt_again(messages: World) -> None:
    handle = in_doubt(messages, lost_before)
    messages.engine().resend("people", handle, second="boss", **BY)
    messages.other.script.append(lost_before)
    assert messages.run().in_doubt == 1
    [again] = messages.engine().in_doubt("people")
    messages.engine().resend("people", again.handle, second="boss", **BY)
    assert messages.run().delivered == 1
    assert len(messages.other.received) == 1


def test_a_handle_that_names_nothing_is_an_error(messages: World) -> None:
    messages.add("a").run()
    with pytest.raises(ActivationsError, match="activations resolve people"):
        messages.engine().mark_delivered("people", "0" * 12, **BY)
    with pytest.raises(ActivationsError):
        messages.engine().mark_delivered("people", "", **BY)


def test_everybody_is_sent_again_on_request_and_who_left_still_leaves(world: World) -> None:
    world.add("a", "b", "gone").run()
    assert world.engine().resync("people", **BY) == 3
    run = world.drop("gone").run()
    assert (run.counts.changed, run.counts.removed, run.delivered) == (2, 1, 3)
    assert world.other.emails == {"a@example.com", "b@example.com"}
    assert world.run().counts.planned == 0


def test_a_guard_speaks_before_everybody_is_sent_again(make_world: Callable[..., World]) -> None:
    world = make_world(guard={"floor_rows": 0})
    world.add("a", "b").run()
    world.engine().resync("people", **BY)
    assert "max_changed_share" in (world.run().held_reason or "")


def test_messages_are_never_all_sent_again(messages: World) -> None:
    messages.add("a").run()
    with pytest.raises(ActivationsError, match="messages"):
        messages.engine().resync("people", **BY)


def test_every_decision_is_in_the_audit_trail(messages: World) -> None:
    handle = in_doubt(messages, lost_before)
    messages.engine().retry("people", **BY)
    messages.engine().resend("people", handle, second="boss", **BY)
    assert messages.engine().verify_audit() == 2


@pytest.mark.parametrize("second", ["", " ", "ops", " OPS "])
def test_a_message_in_doubt_is_sent_again_by_two_people_only(messages: World, second: str) -> None:
    handle = in_doubt(messages, lost_after)
    with pytest.raises(ActivationsError, match="two people"):
        messages.engine().resend("people", handle, second=second, **BY)
    messages.run()
    assert len(messages.other.received) == 1


def test_a_message_of_an_engine_that_died_can_be_settled_at_once(messages: World) -> None:
    messages.other.script.append(killed_after)
    with pytest.raises(Killed):
        messages.add("a").run()
    [message] = messages.engine().in_doubt("people")
    messages.engine().mark_delivered("people", message.handle, **BY)
    assert messages.run().counts.waiting == 0


@pytest.mark.parametrize("fault", [lost_after, killed_after])
def test_a_message_in_doubt_outlives_that_everything_else_is_forgotten(
    messages: World, fault: Answer
) -> None:
    messages.other.script.append(fault)
    with suppress(Killed):
        messages.add("a").run()
    messages.engine().forget("people", **BY)
    for _ in range(2):
        assert dict(messages.run().counts.waiting_by_reason) in ({"in_doubt": 1}, {})
        [message] = messages.engine().in_doubt("people")
        with messages.engine().journal() as journal:
            assert [row.row_key for row in journal.rows_in_doubt("people")]
    messages.engine().mark_delivered("people", message.handle, **BY)
    messages.run()
    assert (messages.engine().in_doubt("people"), len(messages.other.received)) == ([], 1)


def test_a_message_stays_one_although_its_sync_became_another_kind_meanwhile(messages: World) -> None:
    messages.other.script.append(killed_after)
    with pytest.raises(Killed):
        messages.add("a").run()
    document = messages.sync_file.read_text()
    changed = yaml.safe_load(document) | {"mode": "upsert"}
    changed.pop("occurrence")
    messages.sync_file.write_text(yaml.safe_dump(changed))
    with suppress(ActivationsError):
        messages.run()
    messages.sync_file.write_text(document)
    messages.run()
    [message] = messages.engine().in_doubt("people")
    messages.engine().mark_delivered("people", message.handle, **BY)
    assert messages.run().counts.waiting == 0
