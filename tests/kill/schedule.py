"""The real command is killed at some moment of its run, and started again until it is done."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from unittest.mock import patch

import duckdb
import psycopg

from activations.clock import SystemClock
from activations.runner import Engine, load_project
from tests.kill.receiver import Receiver
from tests.kill.truth import violations
from tests.simulation.provider import MESSAGES, PEOPLE
from tests.simulation.world import World, create_tables, fast_folder, write_project

RUN_SECONDS = 1.5
"""About what one command takes; most of it is the start of Python."""
RUNS_TO_FINISH = 8
LONGEST_RUN = 120.0
DONE, PARTIAL = 0, 4
"""Exit codes of a command after which nothing is left that could be done now."""


@dataclass(frozen=True, slots=True)
class Result:
    """What one schedule contained and what it broke."""

    seed: int
    counts: Counter[str]
    violations: list[str]


class LaterClock(SystemClock):
    """The settle window is over."""

    def now(self) -> datetime:
        return super().now() + timedelta(hours=1)


@dataclass(slots=True)
class Schedule:
    """`dsn`: of a Postgres journal; None is the file."""

    seed: int
    root: Path
    dsn: str | None = None
    kills: int = 4
    random: random.Random = field(init=False)
    world: World = field(init=False)
    receiver: Receiver = field(init=False)
    counts: Counter[str] = field(default_factory=Counter)
    said: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = draw = random.Random(self.seed)
        self.world = World(random.Random(draw.random()), draw.randint(4, 12))
        self.receiver = Receiver(random.Random(draw.random()))
        journal = {"type": "postgres", "dsn": "env:JOURNAL_DSN", "schema": f"journal_{self.seed}"}
        write_project(
            self.root,
            settings={"journal": journal} if self.dsn else {},
            account={"batch_rows": draw.choice((1, 2, 5)), "concurrency": draw.choice((1, 3))},
        )

    def play(self) -> Result:
        with closing(self.receiver), patch.dict(os.environ, self._environment()):
            for name in ("ACTIVATIONS_VAR", "DBT_TARGET_PATH"):
                os.environ.pop(name, None)
            self.prepare()
            for _ in range(self.kills):
                self._change()
                self._run_and_kill()
            self.receiver.fault_rate = 0.0
            found = self.finish()
        self.counts["requests"] = self.receiver.requests
        self.counts.update({f"fault_{name}": n for name, n in self.receiver.faults.items()})
        return Result(self.seed, self.counts, found)

    def _environment(self) -> Mapping[str, str]:
        return {"ACTIVATIONS_SANDBOX_URL": self.receiver.url, "JOURNAL_DSN": self.dsn or ""}

    # -- the warehouse -----------------------------------------------------------------------------------------

    def prepare(self) -> None:
        (self.root / "var").mkdir()
        with self._warehouse() as db:
            create_tables(db)
            self.world.build(db)
        Engine(load_project(self.root)).prepare()

    def _change(self) -> None:
        for _ in range(self.random.randint(1, 4)):
            self.world.happen()
        with self._warehouse() as db:
            self.world.build(db)

    @contextmanager
    def _warehouse(self) -> Iterator[duckdb.DuckDBPyConnection]:
        with duckdb.connect(str(self.root / "var/warehouse.duckdb")) as db:
            yield db

    # -- the command -------------------------------------------------------------------------------------------

    def _start(self) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "activations", "sync"]
        self.counts["commands"] += 1
        return subprocess.Popen(
            command, cwd=self.root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def _run_and_kill(self) -> None:
        moment = self.random.choice(("any", "any", "arrived", "applied", "recorded"))
        with self._start() as process:
            self._wait_for(moment, process)
            process.kill()
            self.said.append(process.communicate()[0])
        self.receiver.on_moment = lambda _: None
        if process.returncode < 0:
            self.counts["kills"] += 1
            self.counts[f"killed_{moment}"] += 1
            self._let_leases_run_out()

    def _let_leases_run_out(self) -> None:
        """On a server a lease outlives its holder; 25 seconds pass for it at once."""
        if self.dsn:
            with psycopg.connect(self.dsn, autocommit=True) as server:
                server.execute(f"update journal_{self.seed}.lease set until = until - interval '25 seconds'")

    def _wait_for(self, moment: str, process: subprocess.Popen[str]) -> None:
        """Until the moment has come, or the command has ended."""
        until = time.monotonic() + LONGEST_RUN
        if moment == "any":
            until = time.monotonic() + self.random.uniform(0.4, 1.1) * RUN_SECONDS
            has_come: Callable[[], bool] = lambda: False  # noqa: E731
        elif moment == "recorded":
            has_come = self._is_unmerged
        else:
            has_come = self._kill_inside(process, moment)
        while process.poll() is None and time.monotonic() < until and not has_come():
            time.sleep(0.002)

    def _kill_inside(self, process: subprocess.Popen[str], moment: str) -> Callable[[], bool]:
        """From the receiver's own thread: the request is inside it, and its answer is never sent."""
        left = self.random.randint(1, 3)

        def on_moment(name: str) -> None:
            nonlocal left
            left -= name == moment
            if not left:
                process.kill()

        self.receiver.on_moment = on_moment
        return lambda: left <= 0

    def _is_unmerged(self) -> bool:
        """Whether the journal has outcomes that the warehouse does not have yet."""
        with Engine(load_project(self.root)).journal() as journal:
            return any(journal.unmerged(name) for name in (PEOPLE, MESSAGES))

    # -- the end -----------------------------------------------------------------------------------------------

    def finish(self) -> list[str]:
        """No faults any more: the command again until it has nothing to do, and then what has to be true."""
        for _ in range(RUNS_TO_FINISH):
            before = self.receiver.requests
            with self._start() as process:
                self.said.append(process.communicate(timeout=LONGEST_RUN)[0])
            if self.receiver.requests == before and process.returncode in (DONE, PARTIAL):
                break
        else:
            return [f"L1: not done after {RUNS_TO_FINISH} commands, the last says: {self.said[-1]}"]
        for name in (PEOPLE, MESSAGES):
            Engine(load_project(self.root), clock=LaterClock()).sync(name)
        return self.judge()

    def judge(self) -> list[str]:
        return violations(Engine(load_project(self.root)), self.world, self.receiver, self.said)


def play(seed: int, *, dsn: str | None, kills: int) -> Result:
    with tempfile.TemporaryDirectory(prefix="kill-", dir=fast_folder()) as folder:
        return Schedule(seed, Path(folder), dsn, kills).play()
