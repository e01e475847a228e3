"""One seed, one schedule: processes run syncs under faults, then the faults stop and the world has to converge."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random

from activations.errors import SyncBusy
from activations.model import SyncRun
from tests.simulation.ports import Chances
from tests.simulation.provider import APPLIED_LATE, FAULTS, MESSAGES, PEOPLE, THROTTLED
from tests.simulation.scheduler import Killed, Process
from tests.simulation.stage import OPEN_GUARD, TIGHT_GUARD, Result, Stage
from tests.simulation.world import Shape

ROUNDS_TO_CONVERGE = 9
"""In doubt, settled, successor of a shared address, released: a handful of rounds in the worst case."""
CALM = Chances()
SKEW = 1.0
"""Seconds by which a host's clock may be off."""


@dataclass(slots=True)
class Schedule:
    """Everything that is drawn from the seed."""

    seed: int
    random: Random = field(init=False)
    stage: Stage = field(init=False)
    runs_left: int = 0

    def __post_init__(self) -> None:
        self.random = draw = Random(self.seed)
        shape = Shape(
            batch_rows=draw.choice((1, 2, 3, 5, 50)),
            concurrency=draw.choice((1, 1, 2, 3)),
            settle_seconds=draw.choice((30, 120, 900)),
            guard=draw.choice((OPEN_GUARD, OPEN_GUARD, TIGHT_GUARD)),
            names_bad_rows=draw.random() < 0.5,
            several_hosts=draw.random() < 0.35,
            requests_per_second=draw.choice((None, None, None, 0.5, 2.0)),
            is_large=self.seed % 2 == 0,
        )
        chances = Chances(
            die_at_commit=draw.choice((0, 0.02, 0.08)),
            die_anywhere=draw.choice((0, 0, 0.005, 0.02)),
            stall_before_send=draw.choice((0, 0.05, 0.3, 0.5)),
            stall_anywhere=draw.choice((0, 0.005, 0.02)),
            disk_full=draw.choice((0, 0, 0.01)),
        )
        self.stage = Stage(str(self.seed), draw, shape, chances, people=draw.randint(3, 14))
        self.stage.ports.on_stall = self._during_a_stall
        self.stage.provider.fault_rate = draw.choice((0.1, 0.35, 0.35, 0.6))
        self.stage.provider.favourite_fault = draw.choice(
            (None, draw.randrange(len(FAULTS)), APPLIED_LATE, THROTTLED)
        )

    def play(self) -> Result:
        with self.stage.opened():
            self._storm()
            self._calm()
        return self.stage.result(self.seed)

    # -- the storm ---------------------------------------------------------------------------------------------

    def _storm(self) -> None:
        """Processes, people and faults at the same time."""
        draw, scheduler = self.random, self.stage.scheduler
        self.runs_left = draw.randint(3, 7)
        self._plan_changes(draw)
        for number in range(draw.choice((1, 2, 2, 3))):
            skew = draw.uniform(-SKEW, SKEW) if self.stage.shape.several_hosts else 0.0
            process = Process(scheduler, f"engine {number}", skew=skew)
            favourite = draw.choice((PEOPLE, PEOPLE, MESSAGES, None))
            process.start(lambda process=process, favourite=favourite: self._life(process, favourite))
        scheduler.run()

    def _life(self, process: Process, favourite: str | None) -> None:
        """Run after run, until the storm is over; a process that died is started anew."""
        stage, chance = self.stage, self.stage.ports.random
        while self.runs_left > 0:
            self.runs_left -= 1
            try:
                name = favourite or chance.choice((PEOPLE, MESSAGES))
                run = stage.run(process, name)
                self.runs_left += isinstance(run, SyncBusy)
                if isinstance(run, SyncRun) and run.held_reason and chance.random() < 0.3:
                    stage.release(name)
                stage.scheduler.sleep(chance.uniform(0.5, 40))
            except Killed:
                process.revive()
                with suppress(Killed):
                    stage.scheduler.sleep(chance.uniform(0.1, 10))

    def _plan_changes(self, draw: Random) -> None:
        length = draw.choice((30, 120, 300))
        for _ in range(draw.randint(3, 14)):
            self._later(draw.uniform(0, length), self._change)
        for _ in range(draw.randint(0, 2)):
            self._later(draw.uniform(0, length), self._suppress_somebody)
        if self.stage.shape.guard is TIGHT_GUARD and draw.random() < 0.7:
            self._later(draw.uniform(length / 3, length), self._break_the_model)

    def _later(self, seconds: float, action: Callable[[], None]) -> None:
        self.stage.scheduler.at(self.stage.scheduler.now + seconds, action)

    def _change(self) -> None:
        for _ in range(self.stage.ports.random.randint(1, 3)):
            self.stage.ports.seen["change_" + self.stage.world.happen()] += 1
        self.stage.build()

    def _break_the_model(self) -> None:
        self.stage.ports.seen["change_half_leaves"] += 1
        self.stage.world.half_leaves()
        self.stage.build()

    def _during_a_stall(self, seconds: float) -> None:
        """A process is asleep between intent and send: a good moment to say no."""
        if self.stage.ports.random.random() < 0.5:
            self._later(self.stage.ports.random.uniform(0, seconds / 4), self._suppress_somebody)

    def _suppress_somebody(self) -> None:
        stage = self.stage
        person = stage.ports.random.choice(list(stage.world.people.values()))
        value = stage.ports.random.choice((person.name, person.email))
        stage.engine(None).suppress([value.upper()], channel="email", reason="objection", source="simulation")
        stage.ports.seen["suppressed"] += 1
        stage.referee.suppressed.setdefault(value, stage.scheduler.now)
        stage.referee.note_refusals()

    # -- the calm ----------------------------------------------------------------------------------------------

    def _calm(self) -> None:
        """No faults any more. Whatever is under way arrives; then so many rounds have to be enough."""
        stage = self.stage
        stage.ports.chances, stage.provider.fault_rate = CALM, 0.0
        stage.provider.renew_token()
        stage.build()
        restless = [PEOPLE, MESSAGES]
        for round_number in range(ROUNDS_TO_CONVERGE):
            if any(v.invariant == "crash" for v in stage.referee.violations):
                return
            if round_number or self.random.random() < 0.5:
                stage.scheduler.advance(stage.shape.settle_seconds + 100)
            if round_number == 1 and self.random.random() < 0.5:
                stage.world.refused_leave()
                stage.build()
            is_still = round_number and not stage.scheduler.has_timers
            runs = {name: stage.run_alone(name) for name in restless}
            stage.build()
            if is_still:
                restless = [name for name in restless if not _is_quiet(runs[name])]
            if not restless:
                stage.ports.seen["rounds"] += round_number
                stage.referee.final(PEOPLE, MESSAGES)
                return
        found = "; ".join(_told(run) for run in runs.values())
        stage.referee.blame("L1", f"not converged after {ROUNDS_TO_CONVERGE} rounds: {found}")


def _is_quiet(run: object) -> bool:
    """It sent nothing. Whatever settles was due before this round, so no later round gives this sync anything to do."""
    return isinstance(run, SyncRun) and not run.counts.planned and not run.requests


def _told(run: object) -> str:
    if isinstance(run, SyncRun):
        return f"{run.sync} {run.run_status}, {run.counts.planned} planned"
    return str(run)


def play(seed: int) -> Result:
    return Schedule(seed).play()
