"""The sandbox as far as a command needs it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.client import HTTPConnection, HTTPException
from urllib.parse import urlsplit

from activations.config import Environment, Project
from activations.sandbox.state import Place, home_of


def sandbox_places(project: Project) -> list[Place]:
    """The lists and audiences that the syncs name; they exist in the sandbox from its start."""
    return [
        Place(kind=sync.account.kind, target=sync.target, name=sync.name)
        for sync in project.syncs.values()
        if sync.account.environment is Environment.SANDBOX
    ]


@contextmanager
def sandbox_for(project: Project, syncs: Iterable[str], notice: Callable[[str], object]) -> Iterator[Project]:
    """The project, with a sandbox that answers if one of the syncs needs it: the running one, or one for this command.
    A sandbox that somebody named in the environment is taken at their word; one on the usual port may remember for
    another folder, and then holds other people than our ledger says."""
    needed = any(project.syncs[name].account.environment is Environment.SANDBOX for name in syncs)
    folder = project.var / "sandbox"
    if not needed or "ACTIVATIONS_SANDBOX_URL" in os.environ or _home(project.sandbox_url) == home_of(folder):
        yield project
        return
    from activations.sandbox.server import (
        start_in_background,  # half a second that most commands need not spend
    )

    with start_in_background(folder, places=sandbox_places(project)) as running:
        notice(
            "No sandbox of this project is running, so one is started for this command (keep one with `activations sandbox`)."
        )
        yield replace(project, settings=project.settings.model_copy(update={"sandbox_url": running.url}))


def _home(url: str) -> str | None:
    """Which folder the sandbox at this address remembers in; None when no sandbox answers."""
    parts = urlsplit(url)
    connection = HTTPConnection(parts.hostname or "", parts.port or 80, timeout=0.5)
    try:
        connection.request("GET", "/_home")
        return str(json.loads(connection.getresponse().read(1_000)))
    except (OSError, HTTPException, ValueError):
        return None
    finally:
        connection.close()
