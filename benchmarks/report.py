"""Figures, and how they are shown and kept."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from operator import eq, ge, le
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

_COMPARE = {"<=": le, ">=": ge, "==": eq}
_PACKAGES = ("duckdb", "polars", "pyarrow", "requests", "sqlglot")


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One measured number. `target` is a comparison and a bound (`<= 1.8`); `holds` is None where there is no target."""

    name: str
    figure: float
    unit: str
    target: str | None = None
    holds: bool | None = None


def figure(name: str, value: float, unit: str, target: str | None = None) -> Figure:
    """The number as it is shown is the number that is judged."""
    rounded = round(value, 3 if abs(value) < 10 else 1) if isinstance(value, float) else value
    return Figure(name=name, figure=rounded, unit=unit, target=target, holds=_holds(rounded, target))


def _holds(value: float, target: str | None) -> bool | None:
    if target is None:
        return None
    sign, bound = target.split()
    return bool(_COMPARE[sign](value, float(bound)))


def conditions(*, sizes: Mapping[str, Any], peers: Mapping[str, str]) -> dict[str, Any]:
    """What somebody needs to know to compare these numbers with others."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "load_at_start": round(os.getloadavg()[0], 2),
        "versions": {"python": platform.python_version(), **{p: version(p) for p in _PACKAGES}, **peers},
        "sizes": dict(sizes),
    }


def _processor() -> str:
    """The model as Linux names it; elsewhere what Python knows."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine()
    )


def write(path: Path, figures: Sequence[Figure], facts: Mapping[str, Any]) -> None:
    document = {"figures": [asdict(item) for item in figures], "conditions": dict(facts)}
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def show(figures: Sequence[Figure], facts: Mapping[str, Any]) -> None:
    out = Console(width=max(Console().width, 100), file=sys.stdout)
    table = Table("measure", "figure", "unit", "target", "holds", title="Benchmark")
    for item in figures:
        word = {True: "[green]yes", False: "[bold red]NO", None: ""}[item.holds]
        table.add_row(item.name, f"{item.figure:,}", item.unit, item.target or "", word)
    out.print(table)
    judged = [item for item in figures if item.holds is not None]
    out.print(f"{sum(item.holds is True for item in judged)} of {len(judged)} targets hold.")
    if facts["load_at_start"] > 0.5:
        out.print(
            f"[yellow]Other work was running (load {facts['load_at_start']}): a quiet machine is faster."
        )
    out.print(
        f"{facts['cores']} cores, {facts['processor']}, load at start {facts['load_at_start']}, "
        f"{facts['sizes']['rows']:,} and {facts['sizes']['many_rows']:,} rows, "
        f"{facts['sizes']['latency_ms']} ms, {facts['sizes']['in_flight']} in flight",
        highlight=False,
    )
