"""What is measured. Every case builds its own world, runs whole processes, and says what it found as figures."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.peers import DLT, DRT, PEERS, Peer, Task
from benchmarks.process import CommandFailed, CountingServer, Finished, module, run
from benchmarks.report import Figure, figure
from benchmarks.world import SYNC, Shape, write_project

LATENCY, IN_FLIGHT = 0.02, 16
REPEATS = 3
DUCKDB_CAP = "1GB"
SUPPRESSED = 100
Notice = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Rows of the cases; QUICK is a tenth."""

    rows: int = 1_000_000
    many_rows: int = 10_000_000
    wide_rows: int = 200_000

    def tenth(self) -> Sizes:
        return Sizes(rows=self.rows // 10, many_rows=self.many_rows // 10, wide_rows=self.wide_rows // 10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One sync, as its process and the other side saw it."""

    process: Finished
    summary: dict[str, Any]
    counts: dict[str, int]

    @property
    def plan(self) -> float:
        return float(self.summary["seconds"]["plan"])

    @property
    def deliver(self) -> float:
        return float(self.summary["seconds"]["deliver"])

    def is_exactly(self, **sent: int) -> bool:
        """The other side got these operations, every row once, and the run says the same."""
        wanted = {"added": 0, "changed": 0, "removed": 0, **sent}
        seen = {name: self.counts[name] for name in wanted}
        total = sum(wanted.values())
        return (
            seen == wanted
            and self.counts["distinct_keys"] == self.counts["rows"] == total == self.summary["delivered"]
        )


@dataclass(slots=True, kw_only=True)
class World:
    """A project in a folder, at some round of its audience."""

    folder: Path
    shape: Shape
    server: CountingServer
    batch_rows: int = 1000
    rounds: int = 0
    _base: Path = field(init=False)

    def __post_init__(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.configure()
        self.rebuild(rounds=0)
        run(self._activations("init"), environment=self._environment)
        self._base = self.folder / "base.duckdb"
        shutil.copy(self.warehouse, self._base)

    @property
    def requests(self) -> int:
        """How many the first sync is meant to need; floors count these, whatever was sent."""
        return math.ceil(self.shape.rows / self.batch_rows)

    @property
    def warehouse(self) -> Path:
        return self.folder / "var/warehouse.duckdb"

    def configure(self, *, memory_limit: str | None = None) -> None:
        write_project(
            self.folder,
            self.shape,
            batch_rows=self.batch_rows,
            in_flight=IN_FLIGHT,
            memory_limit=memory_limit,
        )

    def rebuild(self, *, rounds: int) -> None:
        """What a dbt build does to the audience."""
        self.rounds = rounds
        shape = self.shape
        options = [
            "--rows",
            shape.rows,
            "--columns",
            shape.columns,
            "--key",
            shape.key,
            "--order",
            shape.order,
        ]
        run(module("benchmarks.world", self.folder, *options, "--rounds", rounds))

    def forget(self) -> None:
        """As before the first sync."""
        shutil.rmtree(self.folder / "var")
        self.warehouse.parent.mkdir()
        shutil.copy(self._base, self.warehouse)
        run(self._activations("init"), environment=self._environment)

    def suppress(self, people: int) -> None:
        """Of whom none is in the audience: what is measured is looking for them."""
        said = "".join(f"nobody{n}@example.org\n" for n in range(people))
        command = self._activations("suppress", "--reason", "objection", "--channel", "email")
        run(command, environment=self._environment, given=said)

    def sync(self) -> Run:
        self.server.counts()
        process = run(self._activations("sync", SYNC, "--json"), environment=self._environment)
        (summary,) = json.loads(process.output)
        return Run(process=process, summary=summary, counts=self.server.counts())

    def scan_seconds(self) -> float:
        """The floor of planning, measured now, on this very table."""
        found = json.loads(run(module("benchmarks.floors", "scan", self.warehouse)).output)
        return float(found["seconds"])

    def start_seconds(self) -> float:
        """What a command of the engine takes before it does anything."""
        return run(self._activations("status", "--json"), environment=self._environment).seconds

    def discard(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def _environment(self) -> dict[str, str]:
        return {
            "ACTIVATIONS_VAR": str(self.folder / "var"),
            "ACTIVATIONS_SANDBOX_URL": self.server.url,
            "DBT_TARGET_PATH": "target",
        }

    def _activations(self, *arguments: str) -> list[str]:
        return module("activations", "--project-dir", self.folder, *arguments)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """Everything a case needs."""

    home: Path
    server: CountingServer
    sizes: Sizes
    notice: Notice

    def world(self, name: str, shape: Shape, **options: Any) -> World:
        return World(folder=self.home / "worlds" / name, shape=shape, server=self.server, **options)

    def bare_requests(self, requests: int, body_bytes: int) -> float:
        """Seconds for requests of that size when nothing but a bare client sends them."""
        bare = module("benchmarks.floors", "network", self.server.port, requests, body_bytes, IN_FLIGHT)
        return float(json.loads(run(bare).output)["seconds"])


def network_floor(requests: int) -> float:
    """No client can be faster: requests × latency ÷ in flight."""
    return requests * LATENCY / IN_FLIGHT


def name_rows(rows: int) -> str:
    return f"{rows // 1_000_000}M" if rows >= 1_000_000 else f"{rows // 1000}k"


def first_sync(bench: Bench) -> Iterator[Figure]:
    """The first sync of a table, medians of three, against floors and peers."""
    rows = bench.sizes.rows
    world = bench.world("first", Shape(rows=rows))
    floors = {"scan": world.scan_seconds(), "start": world.start_seconds()}
    runs = []
    for _ in range(REPEATS):
        world.forget()
        runs.append(world.sync())
    one = runs[0]
    floors["network"] = network_floor(world.requests)
    whole, deliver = median(r.process.seconds for r in runs), median(r.deliver for r in runs)
    title = f"{name_rows(rows)} first sync, 1000 a request"
    exact = all(r.is_exactly(added=rows) for r in runs)
    yield figure(f"{title}: every row sent exactly once", int(exact), "yes=1", "== 1")
    yield figure(f"{title}: delivery ÷ network floor", deliver / floors["network"], "×", "<= 1.8")
    yield figure(
        f"{title}: whole run ÷ largest floor ({_largest(floors)})", whole / max(floors.values()), "×", "<= 3"
    )
    yield figure(f"{title}: peak memory", max(r.process.peak_mb for r in runs), "MB", "<= 350")
    yield figure(f"{title}: whole run", whole, "s")
    for stage in ("plan", "deliver", "merge"):
        yield figure(f"{title}: {stage}", median(r.summary["seconds"][stage] for r in runs), "s")
    yield figure(f"{title}: rows a second", rows / whole, "rows/s")
    yield figure(f"{title}: processor time", median(r.process.cpu_seconds for r in runs), "CPU s")
    yield figure(f"{title}: requests", one.counts["requests"], "requests", f"== {world.requests}")
    yield figure(f"{title}: most requests open at once", max(r.counts["most_open"] for r in runs), "requests")
    for name, seconds in floors.items():
        yield figure(f"{title}: floor, {name}", seconds, "s")
    bare = bench.bare_requests(world.requests, one.counts["body_bytes"] // world.requests)
    yield figure(f"{title}: bare client with the same requests", bare, "s")
    yield from _against_peers(bench, world, whole)
    world.discard()


def _largest(floors: dict[str, float]) -> str:
    return max(floors, key=lambda name: floors[name])


def _against_peers(bench: Bench, world: World, ours: float) -> Iterator[Figure]:
    rows = bench.sizes.rows
    for peer in PEERS:
        bench.notice(f"{peer.package} {peer.version}, {name_rows(rows)} rows")
        try:
            theirs, counts = _peer_run(bench, peer, world)
        except (CommandFailed, FileNotFoundError) as error:
            bench.notice(f"{peer.package} could not be measured: {error}")
            continue
        title = f"{peer.package}, {name_rows(rows)} rows, 1000 a request"
        yield figure(f"{title}: every row sent exactly once", int(counts["rows"] == rows), "yes=1")
        yield figure(f"{title}: whole run", theirs.seconds, "s")
        yield figure(f"{title}: peak memory", theirs.peak_mb, "MB")
        yield figure(f"{title}: processor time", theirs.cpu_seconds, "CPU s")
        yield figure(f"{title}: most requests open at once", counts["most_open"], "requests")
        target = ">= 10" if peer is DRT else None
        yield figure(f"times faster than {peer.package}", theirs.seconds / ours, "×", target)


def _peer_run(bench: Bench, peer: Peer, world: World) -> tuple[Finished, dict[str, int]]:
    commands = peer.install(bench.home / "peers")
    world.forget()
    task = Task(
        warehouse=world.warehouse,
        url=f"{bench.server.url}/rows",
        rows=bench.sizes.rows,
        rows_a_request=world.batch_rows,
        in_flight=IN_FLIGHT,
        scratch=bench.home / "scratch",
    )
    bench.server.counts()
    finished = peer.send(commands, task)
    shutil.rmtree(task.scratch, ignore_errors=True)
    return finished, bench.server.counts()


def small_requests(bench: Bench) -> Iterator[Figure]:
    """The same table in ten times as many requests."""
    rows = bench.sizes.rows
    world = bench.world("small", Shape(rows=rows), batch_rows=100)
    found = world.sync()
    floor = network_floor(world.requests)
    title = f"{name_rows(rows)} first sync, 100 a request"
    yield figure(f"{title}: every row sent exactly once", int(found.is_exactly(added=rows)), "yes=1", "== 1")
    yield figure(f"{title}: delivery ÷ network floor", found.deliver / floor, "×", "<= 1.3")
    yield figure(f"{title}: requests", found.counts["requests"], "requests", f"== {world.requests}")
    yield figure(f"{title}: deliver", found.deliver, "s")
    yield figure(f"{title}: whole run", found.process.seconds, "s")
    yield figure(f"{title}: floor, network", floor, "s")
    bare = bench.bare_requests(world.requests, found.counts["body_bytes"] // world.requests)
    yield figure(f"{title}: bare client with the same requests", bare, "s")
    world.discard()


def many_rows(bench: Bench) -> Iterator[Figure]:
    """The large audience: first sync, unchanged, two per cent changed, and that again with little memory."""
    rows, title = bench.sizes.many_rows, name_rows(bench.sizes.many_rows)
    world = bench.world("many", Shape(rows=rows))
    first = world.sync()
    yield figure(
        f"{title} first sync: every row sent exactly once", int(first.is_exactly(added=rows)), "yes=1", "== 1"
    )
    yield figure(f"{title} first sync: whole run", first.process.seconds, "s")
    yield figure(f"{title} first sync: peak memory", first.process.peak_mb, "MB")
    yield from _slope(bench, first)
    scan = world.scan_seconds()
    yield figure(f"{title}: scan of the audience", scan, "s")
    unchanged = world.sync()
    yield figure(f"{title} unchanged: requests", unchanged.counts["requests"], "requests", "== 0")
    yield from _planned(f"{title} unchanged", unchanged, scan)
    yield from _round(world, f"{title}, 2 % differ", memory_limit=None)
    yield from _round(
        world, f"{title}, 2 % differ, warehouse limited to {DUCKDB_CAP}", memory_limit=DUCKDB_CAP
    )
    world.discard()


def suppressed(bench: Bench) -> Iterator[Figure]:
    """What it costs a plan that somebody has said no. `many_rows` and the others have nobody who did."""
    rows, title = bench.sizes.rows, f"{name_rows(bench.sizes.rows)}, 2 % differ"
    world = bench.world("suppressed", Shape(rows=rows))
    world.sync()
    for people in (0, SUPPRESSED):
        if people:
            world.suppress(people)
        world.rebuild(rounds=world.rounds + 1)
        found = world.sync()
        exact = found.is_exactly(**world.shape.sent_a_round)
        yield figure(f"{title}, {people} suppressed: exactly these rows sent", int(exact), "yes=1", "== 1")
        yield figure(f"{title}, {people} suppressed: plan", found.plan, "s")
        yield figure(f"{title}, {people} suppressed: processor time", found.process.cpu_seconds, "CPU s")
    world.discard()


def _planned(title: str, found: Run, scan: float) -> Iterator[Figure]:
    yield figure(f"{title}: plan ÷ scan", found.plan / scan, "×", "<= 4")
    yield figure(f"{title}: plan", found.plan, "s")
    yield figure(f"{title}: peak memory", found.process.peak_mb, "MB", "<= 1300")


def _round(world: World, title: str, *, memory_limit: str | None) -> Iterator[Figure]:
    """The audience changes, the scan is measured again, the sync runs."""
    world.rebuild(rounds=world.rounds + 1)
    world.configure(memory_limit=memory_limit)
    scan = world.scan_seconds()
    found = world.sync()
    exact = found.is_exactly(**world.shape.sent_a_round)
    yield figure(f"{title}: exactly these rows sent", int(exact), "yes=1", "== 1")
    yield from _planned(title, found, scan)
    yield figure(f"{title}: whole run", found.process.seconds, "s")


def _slope(bench: Bench, large: Run) -> Iterator[Figure]:
    """The exponent of growth between the two sizes: 1 is linear, 2 is quadratic."""
    world = bench.world("slope", Shape(rows=bench.sizes.rows))
    small = world.sync()
    world.discard()
    times = math.log10(bench.sizes.many_rows / bench.sizes.rows)
    title = f"slope {name_rows(bench.sizes.rows)} → {name_rows(bench.sizes.many_rows)}"
    exponent = math.log10(large.process.seconds / small.process.seconds) / times
    yield figure(f"{title}, first sync: exponent of growth", exponent, "1 = linear", "<= 1.1")
    yield figure(f"{title}, first sync: seconds a million rows, small", _per_million(small), "s")
    yield figure(f"{title}, first sync: seconds a million rows, large", _per_million(large), "s")


def _per_million(found: Run) -> float:
    return found.process.seconds / float(found.summary["audience_size"]) * 1e6


def shapes(bench: Bench) -> Iterator[Figure]:
    """Other keys, other orders, more columns: a first sync and a round each."""
    plain = Shape(rows=bench.sizes.rows)
    cases = {
        "random key order": (replace(plain, order="random"), 1000),
        "text keys": (replace(plain, key="text"), 1000),
        "100 columns": (replace(plain, rows=bench.sizes.wide_rows, columns=100), 200),
    }
    for name, (shape, batch_rows) in cases.items():
        bench.notice(name)
        world = bench.world("shape", shape, batch_rows=batch_rows)
        first = world.sync()
        title = f"{name_rows(shape.rows)}, {name}"
        exact = first.is_exactly(added=shape.rows)
        floor = network_floor(world.requests)
        yield figure(f"{title}, first sync: every row sent exactly once", int(exact), "yes=1", "== 1")
        yield figure(f"{title}, first sync: delivery ÷ network floor", first.deliver / floor, "×")
        yield figure(f"{title}, first sync: whole run", first.process.seconds, "s")
        yield figure(f"{title}, first sync: peak memory", first.process.peak_mb, "MB")
        yield from _round(world, f"{title}, 2 % differ", memory_limit=None)
        world.discard()


CASES: dict[str, Callable[[Bench], Iterator[Figure]]] = {
    "first": first_sync,
    "small": small_requests,
    "shapes": shapes,
    "suppressed": suppressed,
    "many": many_rows,
}
PACKAGES = {peer.package: peer.version for peer in (DRT, DLT)}
