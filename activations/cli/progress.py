"""A bar while rows are delivered."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from activations.delivery import Progress as Delivered


@contextmanager
def progress_bar(name: str, *, quiet: bool) -> Iterator[Callable[[Delivered], None]]:
    """What to call after every batch. Nothing is drawn where nobody looks."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=quiet or not console.is_terminal, transient=True) as bar:
        task = bar.add_task(name, total=None)
        yield lambda done: bar.update(task, completed=done.done, total=done.total)
