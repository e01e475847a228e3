"""python -m tests.kill --kills 200 [--journal sqlite|postgres] [--first 0] [--workers 2]"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context

from tests.kill.schedule import Result, play
from tests.warehouses.server import postgres_server

KILLS_OF_ONE = 4


def main() -> int:
    options = _options()
    started, counts, failed = time.monotonic(), Counter[str](), 0
    with _dsn(options.journal) as dsn:
        for result in _played(options, dsn):
            counts += result.counts
            counts["schedules"] += 1
            failed += bool(result.violations)
            for violation in result.violations:
                print(f"schedule {result.seed}: {violation}", flush=True)
    print(_line(options.journal, counts, time.monotonic() - started, failed))
    return bool(failed)


@contextmanager
def _dsn(journal: str) -> Iterator[str | None]:
    if journal == "sqlite":
        yield None
        return
    with postgres_server() as server, server.database() as name:
        yield server.dsn(name)


def _played(options: argparse.Namespace, dsn: str | None) -> Iterator[Result]:
    """Schedules until there were so many kills: now and then a command is faster than its killer."""
    first, missing = options.first, options.kills
    with get_context("spawn").Pool(options.workers) as workers:
        while missing > 0:
            seeds = range(first, first + -(-missing // KILLS_OF_ONE))
            for result in workers.imap(partial(play, dsn=dsn, kills=KILLS_OF_ONE), seeds):
                missing -= result.counts["kills"]
                yield result
            first = seeds.stop


def _line(journal: str, counts: Counter[str], seconds: float, failed: int) -> str:
    faults = {
        name.removeprefix("fault_"): n for name, n in sorted(counts.items()) if name.startswith("fault_")
    }
    moments = ", ".join(
        f"{name.removeprefix('killed_')} {n}"
        for name, n in sorted(counts.items())
        if name.startswith("killed_")
    )
    return (
        f"journal {journal}, schedules {counts['schedules']}, kills {counts['kills']} ({moments}), commands {counts['commands']}, "
        f"requests {counts['requests']}, faults {sum(faults.values())} ({', '.join(f'{k} {n}' for k, n in faults.items())}), "
        f"seconds {seconds:.0f}, violations {failed}"
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.kill", description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="how often a command is killed, at least")
    parser.add_argument("--journal", choices=("sqlite", "postgres"), default="sqlite")
    parser.add_argument("--first", type=int, default=0, help="the first schedule")
    parser.add_argument("--workers", type=int, default=2)
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
