"""`make dev`: Dagster's UI, daemon and code location, and the sandbox, on loopback until Ctrl-C."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import FrameType

from rich.console import Console

from activations.errors import ActivationsError
from activations.runner import load_project
from dagster_project import local

ROOT = Path(__file__).resolve().parents[1]
DAGSTER_PORT = 3000


def main() -> int:
    console = Console()
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        return dev(console)
    except ActivationsError as error:
        console.print(f"[red]{error}[/red]", highlight=False)
        return 1
    except KeyboardInterrupt:
        console.print("\nStopped.")
        return 0


def dev(console: Console) -> int:
    project = load_project(ROOT)
    port = local.free_port(DAGSTER_PORT)
    with local.sandbox(project) as sandbox:
        env = local.environment(project, sandbox.url)
        console.print(f"Dagster   http://{local.LOOPBACK}:{port}  (up in about 20 s)", highlight=False)
        console.print(f"Sandbox   {sandbox.url}", highlight=False)
        console.print(f"Logs      {os.path.relpath(project.var / 'logs')}", highlight=False)
        console.print("Ctrl-C stops both.")
        with local.child(command(port), env, project.var / "logs" / "dagster.log") as process:
            code = process.wait()
    console.print(
        f"Dagster ended by itself ({code}). Its words are in {project.var / 'logs' / 'dagster.log'}"
    )
    return 1


def command(port: int) -> list[str]:
    dagster = [sys.executable, "-m", "dagster", "dev"]
    return [*dagster, "-w", str(ROOT / "workspace.yaml"), "-h", local.LOOPBACK, "-p", str(port)]


def _interrupt(signum: int, frame: FrameType | None) -> None:
    """A service manager's stop is our Ctrl-C, so that the children are stopped too."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
