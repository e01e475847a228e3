"""Many schedules on several OS processes, and what they contained in one line."""

from __future__ import annotations

import gc
import os
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from multiprocessing import get_context
from multiprocessing.pool import Pool
from typing import Any, TypeVar

# Schedules are small; the machine's cores go to whole schedules.
os.environ.setdefault("POLARS_MAX_THREADS", "1")
# DuckDB takes and gives back thousands of small pieces with every statement. Read when an OS process starts: by workers.
os.environ.setdefault("GLIBC_TUNABLES", "glibc.malloc.tcache_count=2000:glibc.malloc.tcache_max=65536")

from tests.simulation import crash_points
from tests.simulation.ports import CrashPoint
from tests.simulation.schedule import play
from tests.simulation.stage import Result

Found = TypeVar("Found")


def attempt(seed: int) -> Result:
    """A schedule that cannot even be played is a violation too."""
    try:
        return play(seed)
    except Exception:
        return Result(seed, Counter(), (f"harness: {traceback.format_exc(limit=-6)}",))


@dataclass(slots=True)
class Campaign:
    """What a number of schedules contained."""

    counts: Counter[str] = field(default_factory=Counter)
    failed: list[Result] = field(default_factory=list)
    seeds: int = 0
    seconds: float = 0.0

    def add(self, result: Result) -> None:
        self.seeds += 1
        self.counts += result.counts
        if result.violations:
            self.failed.append(result)

    @property
    def faults(self) -> dict[str, int]:
        return self._named("fault_")

    def _named(self, prefix: str) -> dict[str, int]:
        return {k.removeprefix(prefix): n for k, n in sorted(self.counts.items()) if k.startswith(prefix)}

    def line(self) -> str:
        """One line of counts."""
        c, faults, crashes = self.counts, self.faults, self._named("crash_")
        merges = c["warehouse_commit"]
        return (
            f"seeds {self.seeds}, runs {c['runs']}, requests {c['requests']}, commits {c['journal_commit']} + {merges}, "
            f"faults {sum(faults.values())} ({_listed(faults)}), crashes at commits {sum(crashes.values())} ({_listed(crashes)}), kills {c['kill']}, "
            f"takeovers {c['takeover']}, fenced {c['error_Fenced']}, pauses {c['pause'] + c['pause_before_send']} (before a send {c['pause_before_send']}), suppressions {c['suppressed']}, "
            f"held {c['run_held']}, released {c['released']}, virtual hours {c['virtual_seconds'] // 3600}, "
            f"seconds {self.seconds:.0f}, violations {len(self.failed)}"
        )


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def results(seeds: Iterable[int], workers: int) -> Iterator[Result]:
    """In the order of the seeds."""
    yield from _mapped(attempt, seeds, workers)


def run(seeds: Iterable[int], *, workers: int) -> Iterator[tuple[Campaign, Result]]:
    campaign, started = Campaign(), time.monotonic()
    for result in results(seeds, workers):
        campaign.add(result)
        campaign.seconds = time.monotonic() - started
        yield campaign, result


def crash_at_every_commit(*, workers: int) -> Iterator[tuple[str, Result]]:
    """(scenario and point, result)."""
    scenarios = crash_points.SCENARIOS
    found = zip(scenarios, _mapped(crash_points.points_of, scenarios, workers), strict=True)
    points = [(scenario, point) for scenario, its_points in found for point in its_points]
    for (scenario, point), result in zip(points, _mapped(_crash, points, workers), strict=True):
        yield f"{scenario.name}, {point}", result


def _crash(given: tuple[crash_points.Scenario, CrashPoint]) -> Result:
    return crash_points.play(*given)


def _mapped(work: Callable[[Any], Found], given: Iterable[Any], workers: int) -> Iterator[Found]:
    """In the order of what is given."""
    if workers == 1:
        yield from map(work, given)
        return
    yield from _pool(workers).imap(work, given, chunksize=4)


@lru_cache(maxsize=1)
def _pool(workers: int) -> Pool:
    """One for crash points and schedules: an OS process that imports everything and composes every statement anew costs
    seconds."""
    context = get_context("spawn")
    return context.Pool(workers, initializer=_settle_down, initargs=(context.Value("i"),))


def _settle_down(started: Any) -> None:
    """On a core of its own, where threads that take turns find their caches warm; garbage is looked for seldom."""
    gc.freeze()
    gc.set_threshold(50_000)
    with started.get_lock():
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[started.value % len(cores)]})
        started.value += 1
