"""What a machine of one's own needs around the code location: an instance home and a running sandbox."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from activations.cli.stand_in import sandbox_places
from activations.config import Project
from activations.errors import ActivationsError
from activations.sandbox.server import DEFAULT_PORT, RunningSandbox, start_in_background

LOOPBACK = "127.0.0.1"
SETTINGS = Path(__file__).with_name("dagster.yaml")
STOP_SECONDS = 30


class LaunchError(ActivationsError):
    """Something that the launcher starts did not start."""


def environment(project: Project, sandbox_url: str) -> dict[str, str]:
    """What every process of ours is started with; Dagster reads its settings from DAGSTER_HOME and nowhere else."""
    return {
        **os.environ,
        "DAGSTER_HOME": str(dagster_home(project)),
        "ACTIVATIONS_VAR": str(project.var),
        "ACTIVATIONS_SANDBOX_URL": sandbox_url,
        # Dagster announces the successors of its own commands; that is news for us, not for who runs the demo.
        "PYTHONWARNINGS": "ignore",
    }


def dagster_home(project: Project) -> Path:
    """The instance's folder below the state folder, with the settings of this project."""
    home = project.var / "dagster"
    home.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(SETTINGS, home / "dagster.yaml")
    return home


def free_port(preferred: int) -> int:
    """The preferred port of loopback, or the next that nobody listens on."""
    for port in range(preferred, preferred + 50):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
            return port
    raise LaunchError(f"no free port from {preferred} to {preferred + 49}. Stop what listens there")


def sandbox(project: Project) -> RunningSandbox:
    """The vendors' stand-ins, in a thread of this process until the `with` around it ends.

    What they hold is kept in the state folder: the next demo meets the same lists, and `make dev` shows them.
    """
    state, places = project.var / "sandbox", sandbox_places(project)
    try:
        return start_in_background(state, DEFAULT_PORT, places)
    except OSError:  # taken, by another sandbox most likely: any free port will do
        return start_in_background(state, 0, places)


@contextmanager
def child(command: Sequence[str], env: Mapping[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process of our own, told to stop when the `with` ends; its words go to `log`.

    It is out of reach of the terminal's Ctrl-C, so that children stop in order and not all at once.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=dict(env), stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            yield process
        finally:
            _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ctrl-C for the child and for what it started; whatever of it is left half a minute later is killed."""
    _signal_group(process, signal.SIGINT)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        _signal_group(process, signal.SIGKILL)
        process.wait()
    _signal_group(process, signal.SIGTERM)


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)
