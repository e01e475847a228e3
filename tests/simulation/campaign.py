"""Many schedules on several OS processes, and what they contained in one line."""

from __future__ import annotations

import os
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from multiprocessing import get_context

os.environ.setdefault(
    "POLARS_MAX_THREADS", "1"
)  # schedules are small; the machine's cores go to whole schedules

from tests.simulation.schedule import Result, play

NAMED_LAST = "violations"


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
            f"pauses {c['pause'] + c['pause_before_send']} (before a send {c['pause_before_send']}), suppressions {c['suppressed']}, "
            f"held {c['run_held']}, released {c['released']}, virtual hours {c['virtual_seconds'] // 3600}, "
            f"seconds {self.seconds:.0f}, violations {len(self.failed)}"
        )


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def results(seeds: Iterable[int], workers: int) -> Iterator[Result]:
    """In the order of the seeds."""
    if workers == 1:
        yield from map(attempt, seeds)
        return
    with get_context("spawn").Pool(workers) as pool:
        yield from pool.imap(attempt, seeds, chunksize=4)


def run(seeds: Iterable[int], *, workers: int) -> Iterator[tuple[Campaign, Result]]:
    campaign, started = Campaign(), time.monotonic()
    for result in results(seeds, workers):
        campaign.add(result)
        campaign.seconds = time.monotonic() - started
        yield campaign, result
