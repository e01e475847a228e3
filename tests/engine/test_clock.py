"""A clock that jumps backwards: nothing is lost, nothing is sent twice."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from activations.model import Request, Response, RunStatus
from tests.engine.world import OtherSide, World, lost_after, status

JUMP = timedelta(hours=2)


def test_a_run_after_the_jump_delivers_what_changed(world: World) -> None:
    world.add("a", "b").run()
    world.clock.moment -= JUMP
    run = world.set("a", score=2).drop("b").run()
    assert (run.run_status, run.delivered) == (RunStatus.SUCCEEDED, 2)
    assert world.other.emails == {"a@example.com"}
    assert world.run().counts.planned == 0
    assert world.query("select count(*) from activation.sync_changelog") == [(4,)]


def test_a_jump_within_a_run_breaks_nothing(world: World) -> None:
    def jump(other: OtherSide, request: Request) -> Response:
        world.clock.moment -= JUMP
        return other.accept(request)

    world.other.script.append(jump)
    assert world.add("a", "b").run().delivered == 2
    assert world.run().counts.planned == 0


def test_what_was_in_doubt_settles_after_the_jump(world: World) -> None:
    """It takes longer by the clock, and never less than the settle window."""
    world.other.script.append(lost_after)
    assert world.add("a").run().in_doubt == 1
    world.clock.moment -= JUMP
    assert world.run().delivered == 1
    assert dict(world.run().counts.waiting_by_reason) == {"settling": 1}
    world.clock.sleep(JUMP.total_seconds() + 3600)
    assert world.run().delivered == 1
    assert world.run().counts.waiting == 0


@pytest.mark.parametrize("answer", [lost_after, None])
def test_a_message_is_not_repeated_after_the_jump(make_world: Callable[..., World], answer: object) -> None:
    world = make_world(mode="append")
    if answer:
        world.other.script.append(answer)  # type: ignore[arg-type]
    world.add("a").run()
    world.clock.moment -= JUMP
    world.run()
    assert len(world.other.received) == 1


def test_a_wait_that_the_jump_made_longer_is_told(world: World) -> None:
    """The destination is left alone for longer than it asked, which is the safe side."""
    world.other.always = status(429, {"retry-after": "60"})
    world.add("a").run()
    world.other.always = None
    world.clock.moment -= JUMP
    assert "asked to wait" in (world.run().error or "")
    world.clock.sleep(JUMP.total_seconds() + 60)
    assert world.run().delivered == 1
