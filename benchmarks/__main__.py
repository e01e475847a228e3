"""`python -m benchmarks`: measure, print, write `benchmarks/latest.json`."""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from benchmarks.cases import CASES, IN_FLIGHT, LATENCY, PACKAGES, Bench, Sizes
from benchmarks.process import ROOT, CommandFailed, counting_server
from benchmarks.report import Figure, conditions, figure, show, write

LATEST = Path(__file__).parent / "latest.json"
HOME = ROOT / "var/bench"
"""Worlds and the peers' environments: ignored by git, worlds are removed when measured."""


def main() -> None:
    """A case that fails is named and the others still run; a target that does not hold is a figure, not a failure."""
    given = _arguments()
    sizes = Sizes().tenth() if given.quick else Sizes()
    out = Console(stderr=True, highlight=False)
    facts = conditions(
        sizes={**asdict(sizes), "latency_ms": LATENCY * 1000, "in_flight": IN_FLIGHT}, peers=PACKAGES
    )
    facts["quick"], facts["cases"] = given.quick, given.only or list(CASES)
    facts["failed"] = []
    started = time.perf_counter()
    figures: list[Figure] = []
    with counting_server(LATENCY) as server:
        bench = Bench(home=HOME, server=server, sizes=sizes, notice=lambda text: out.print(f"  {text} …"))
        for name in facts["cases"]:
            out.print(f"[bold]{name}[/]")
            try:
                for item in CASES[name](bench):
                    out.print(f"    {item.name}: {item.figure:,} {item.unit}")
                    figures.append(item)
            except CommandFailed as error:
                out.print(f"[bold red]failed[/] {name}: {error}", markup=True)
                facts["failed"].append(name)
                figures.append(figure(f"{name}: could be measured to its end", 0, "yes=1", "== 1"))
    figures.append(
        figure(
            "the whole bench",
            time.perf_counter() - started,
            "s",
            "<= 300" if given.quick and not facts["failed"] else None,
        )
    )
    write(given.output, figures, facts)
    show(figures, facts)
    if facts["failed"]:
        sys.exit(1)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the rows")
    parser.add_argument("--only", nargs="+", choices=CASES, help="some of the cases")
    parser.add_argument("--output", type=Path, default=LATEST, help="where the figures are written")
    return parser.parse_args()


if __name__ == "__main__":
    main()
