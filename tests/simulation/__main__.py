"""python -m tests.simulation --seeds 500 [--first 0] [--seed 17] [--workers 2] [--ablations]"""

from __future__ import annotations

import argparse
import os
import sys

from tests.simulation import ablations
from tests.simulation.campaign import Campaign, crash_at_every_commit, run

MOST_SHOWN = 3
"""Violations of one seed; the first is the cause of most others."""


def main() -> int:
    options = _options()
    if options.ablations:
        return _ablations(options.seeds, options.workers)
    only = options.seed if options.seed is not None else os.environ.get("SEED")
    seeds = [int(only)] if only else range(options.first, options.first + options.seeds)
    crashed = 0 if only or options.first else _crash_points(options.workers)
    campaign = Campaign()
    for campaign, result in run(seeds, workers=1 if only else options.workers):
        for violation in result.violations[:MOST_SHOWN]:
            print(f"seed {result.seed}: {violation}")
        if campaign.seeds % 1000 == 0:
            print(f"… {campaign.line()}", file=sys.stderr)
    if campaign.failed:
        print(f"again: make simulate SEED={campaign.failed[0].seed}")
    print(campaign.line())
    return bool(campaign.failed or crashed)


def _crash_points(workers: int) -> int:
    """How many of all crash points of the fixed scenarios broke something."""
    broken = []
    for name, result in crash_at_every_commit(workers=workers):
        broken.append(bool(result.violations))
        for violation in result.violations[:MOST_SHOWN]:
            print(f"{name}: {violation}")
    print(f"crash points {len(broken)}, violations {sum(broken)}", flush=True)
    return sum(broken)


def _ablations(seeds: int, workers: int) -> int:
    missed = 0
    for ablation, caught in ablations.score(seeds, workers=workers):
        missed += caught is None and ablation.within is not None
        print(f"{ablation.name}: {caught or f'not caught in {seeds} seeds'}", flush=True)
    return bool(missed)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=500, help="how many schedules")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--seed", type=int, help="this schedule only; SEED in the environment means the same")
    parser.add_argument("--workers", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument(
        "--ablations", action="store_true", help="switch off one measure after the other instead"
    )
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
