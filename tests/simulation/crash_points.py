"""Small scenarios with a death before and after every commit of journal and warehouse, enumerated instead of drawn;
in some of them the disk is full there too."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from activations.config import Guard
from activations.model import SyncRun
from tests.simulation.ports import AFTER_INTENT, Chances, CrashPoint
from tests.simulation.provider import MESSAGES, PEOPLE
from tests.simulation.stage import OPEN_GUARD, TIGHT_GUARD, Result, Stage
from tests.simulation.world import BAD_SCORE, Person, Shape, World

ROUNDS = 5
"""After a crash: what is in doubt is sent again, it settles, and then nothing is left to do."""

Change = Callable[[World], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """`change` is what the run that dies has to deliver. Before it, a run delivered the audience as it was."""

    name: str
    change: Change
    sync: str = PEOPLE
    is_first: bool = False
    guard: Guard = OPEN_GUARD
    recovers: bool = False
    """An earlier run with the same to deliver died between intent and request: the recovery is what dies."""
    sides: tuple[str, ...] = ("before", "after")


def _nothing(_: World) -> None:
    pass


def _rescore(world: World) -> None:
    for person in world.people.values():
        person.score += 1


def _leave_and_move(world: World) -> None:
    leaves, withdraws, moves, _ = world.people.values()
    leaves.is_member = False
    withdraws.blocker = "consent"
    moves.email = f"{moves.name}.new@example.com"


def _spoil_one(world: World) -> None:
    """A batch that is refused without a word is halved until the bad value stands alone."""
    _rescore(world)
    next(iter(world.people.values())).score = BAD_SCORE


def _all_leave(world: World) -> None:
    for person in world.people.values():
        person.is_member = False


def _write_to_everybody(world: World) -> None:
    for person in world.people.values():
        person.events.append(f"{person.name}-news")


SCENARIOS = (
    Scenario(name="first sync", change=_nothing, is_first=True, sides=("before", "after", "full")),
    Scenario(name="change", change=_rescore),
    Scenario(name="removal", change=_leave_and_move),
    Scenario(name="rejected", change=_spoil_one),
    Scenario(name="released", change=_all_leave, guard=TIGHT_GUARD),
    Scenario(name="recovery", change=_rescore, recovers=True),
    Scenario(
        name="messages",
        change=_write_to_everybody,
        sync=MESSAGES,
        is_first=True,
        sides=("before", "after", "full"),
    ),
)


def points_of(scenario: Scenario) -> list[CrashPoint]:
    """At every commit of the run."""
    _, commits = _play(scenario, None)
    return [CrashPoint(number, side) for number in range(1, commits + 1) for side in scenario.sides]


def play(scenario: Scenario, point: CrashPoint | None) -> Result:
    return _play(scenario, point)[0]


def _play(scenario: Scenario, point: CrashPoint | None) -> tuple[Result, int]:
    """What happened, and how many commits the run made that was to die."""
    shape = Shape(batch_rows=4, concurrency=1, settle_seconds=30, guard=scenario.guard, names_bad_rows=False)
    stage = Stage(f"{scenario.name}-{point}", random.Random(0), shape, Chances(), people=0)
    stage.world.people = {name: Person(name, f"{name}@example.com", 1) for name in ("p0", "p1", "p2", "p3")}
    with stage.opened():
        if not scenario.is_first:
            stage.run_alone(scenario.sync)
        scenario.change(stage.world)
        stage.build()
        if scenario.guard == TIGHT_GUARD:
            stage.run_alone(scenario.sync)  # held, and then let pass
        if scenario.recovers:
            _die(stage, scenario.sync, AFTER_INTENT)
        commits = _die(stage, scenario.sync, point)
        _converge(stage, scenario.sync)
    return stage.result(0), commits


def _die(stage: Stage, sync: str, point: CrashPoint | None) -> int:
    ports = stage.ports
    ports.commits, ports.crash_at = 0, point
    survived = stage.run_alone(sync) is not None
    ports.crash_at = None
    if survived != (point is None or point.side == "full"):
        stage.referee.blame("harness", f"the run was to die {point} and made {ports.commits} commits")
    return ports.commits


def _converge(stage: Stage, sync: str) -> None:
    for _ in range(ROUNDS):
        stage.scheduler.advance(stage.shape.settle_seconds + 1)
        run = stage.run_alone(sync)
        if isinstance(run, SyncRun) and not run.counts.planned:
            stage.referee.final(sync)
            return
    stage.referee.blame("L1", f"not converged after {ROUNDS} runs: {run}")
