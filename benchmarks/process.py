"""Running a command and measuring the whole process: wall seconds, CPU seconds, peak memory."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_MAXRSS_BYTES = 1 if sys.platform == "darwin" else 1024  # what one unit of ru_maxrss is


class CommandFailed(Exception):
    """A measured command ended with an error: its figures would mean nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A process that ended well."""

    seconds: float
    cpu_seconds: float
    peak_mb: float
    output: str


def run(
    command: Sequence[str | Path],
    *,
    environment: Mapping[str, str] | None = None,
    folder: Path = ROOT,
    given: str = "",
) -> Finished:
    """Run to the end, with `given` on standard input. This process stays small on purpose: a child starts with its parent's peak on its account."""
    with tempfile.TemporaryFile() as into, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        into.write(given.encode())
        into.seek(0)
        started = time.perf_counter()
        child = subprocess.Popen(
            [str(part) for part in command],
            cwd=folder,
            env={**os.environ, **(environment or {})},
            stdin=into,
            stdout=out,
            stderr=err,
        )
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - started
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            raise CommandFailed(
                f"`{Path(command[0]).name} {' '.join(map(str, command[1:4]))} …`: {_end(out, err)}"
            )
        out.seek(0)
        return Finished(
            seconds=seconds,
            cpu_seconds=usage.ru_utime + usage.ru_stime,
            peak_mb=usage.ru_maxrss * _MAXRSS_BYTES / 1e6,
            output=out.read().decode(),
        )


def _end(*streams: object) -> str:
    """The last lines of what the command said."""
    said = b""
    for stream in streams:
        stream.seek(0)  # type: ignore[attr-defined]
        said += stream.read()  # type: ignore[attr-defined]
    return said.decode(errors="replace")[-1500:]


def module(name: str, *arguments: object) -> list[str]:
    """The command that runs a module with this interpreter."""
    return [sys.executable, "-m", name, *map(str, arguments)]


@dataclass(frozen=True, slots=True)
class CountingServer:
    """The running server, from the outside."""

    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def counts(self) -> dict[str, int]:
        """What came in since the last call; counting starts again."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        connection.request("GET", "/counts")
        counts: dict[str, int] = json.loads(connection.getresponse().read())
        connection.close()
        return counts


@contextmanager
def counting_server(latency: float) -> Iterator[CountingServer]:
    child = subprocess.Popen(
        module("benchmarks.server", "--latency", latency), cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        yield CountingServer(int(child.stdout.readline() if child.stdout else ""))
    finally:
        child.terminate()
        child.wait()
