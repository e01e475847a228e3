"""Other tools on the same table and the same server, each in an environment of its own, pinned by its lock.

Both are set up to be as fast as they get without changing their code: drt-core sends batches rendered by one template
and its pacing is switched off; dlt gets Arrow from DuckDB, Parquet between its stages and enough files for every worker.
Telemetry is off, and their home is a scratch folder.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import yaml

from benchmarks.process import ROOT, Finished, run

HERE = Path(__file__).parent
_QUIET = {"DO_NOT_TRACK": "1", "RUNTIME__DLTHUB_TELEMETRY": "false", "RUNTIME__LOG_LEVEL": "ERROR"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What a peer is to send, and how."""

    warehouse: Path
    url: str
    rows: int
    rows_a_request: int
    in_flight: int
    scratch: Path


@dataclass(frozen=True, slots=True)
class Peer:
    """A tool, its lock, and how it is told to do the task."""

    name: str
    package: str
    send: Callable[[Path, Task], Finished]

    @property
    def lock(self) -> Path:
        return HERE / f"{self.name}.lock"

    @property
    def version(self) -> str:
        found = re.search(rf"^{re.escape(self.package)}==(\S+)", self.lock.read_text(), re.MULTILINE)
        return found.group(1) if found else "unknown"

    def install(self, folder: Path) -> Path:
        """Its environment, made once for each state of the lock. Returns the folder with its commands."""
        home = folder / self.name
        mark, state = home / ".installed", hashlib.sha256(self.lock.read_bytes()).hexdigest()
        if not mark.exists() or mark.read_text() != state:
            uv = _uv()
            run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, home])
            environment = {"VIRTUAL_ENV": str(home)}
            run(
                [uv, "pip", "install", "--quiet", "--require-hashes", "-r", self.lock],
                environment=environment,
            )
            mark.write_text(state)
        return home / "bin"


def _uv() -> str:
    own = ROOT / ".tools/bin/uv"
    found = str(own) if own.exists() else shutil.which("uv")
    if not found:
        raise FileNotFoundError("uv is not there: run `make bench`, which fetches it")
    return found


def _scratch_home(task: Task) -> dict[str, str]:
    shutil.rmtree(task.scratch, ignore_errors=True)
    task.scratch.mkdir(parents=True)
    return {**_QUIET, "HOME": str(task.scratch), "PATH": os.environ["PATH"]}


def _drt(commands: Path, task: Task) -> Finished:
    environment = _scratch_home(task)
    project = task.scratch / "project"
    (project / "syncs").mkdir(parents=True)
    (task.scratch / ".drt").mkdir()
    profile = {"bench": {"type": "duckdb", "database": str(task.warehouse)}}
    (task.scratch / ".drt/profiles.yml").write_text(yaml.safe_dump(profile))
    (project / "drt_project.yml").write_text(
        yaml.safe_dump({"name": "bench", "version": "1", "profile": "bench"})
    )
    sync = {
        "name": "people",
        "model": "select * from audiences.aud_people",
        "destination": {
            "type": "rest_api",
            "url": task.url,
            "method": "POST",
            "headers": {"Content-Type": "application/json"},
            "body_mode": "batch",
            "batch_template": '{"rows": {{ rows | tojson_safe }}}',
        },
        "sync": {
            "mode": "full",
            "batch_size": task.rows_a_request,
            "rate_limit": {"requests_per_second": 1e9},
        },
    }
    (project / "syncs/people.yml").write_text(yaml.safe_dump(sync))
    return run([commands / "drt", "run", "--select", "people"], environment=environment, folder=project)


def _dlt(commands: Path, task: Task) -> Finished:
    """One file a worker and a half, so that no worker waits for the last one."""
    files = task.in_flight * 3 // 2
    environment = _scratch_home(task) | {
        "LOAD__WORKERS": str(task.in_flight),
        "NORMALIZE__DATA_WRITER__FILE_MAX_ITEMS": str(max(task.rows // files, task.rows_a_request)),
        "DATA_WRITER__FILE_MAX_ITEMS": str(max(task.rows // files, task.rows_a_request)),
    }
    script = (commands / "python", HERE / "dlt_pipeline.py", task.warehouse, task.url, task.scratch)
    options = ("--rows-a-request", str(task.rows_a_request))
    return run([*script, *options], environment=environment, folder=task.scratch)


DRT = Peer("drt", "drt-core", _drt)
DLT = Peer("dlt", "dlt", _dlt)
PEERS = (DRT, DLT)
