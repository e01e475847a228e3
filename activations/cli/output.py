"""What commands print, for a person or with `--json` for a program, and the code they end with."""

from __future__ import annotations

import json
from collections.abc import Callable
from enum import IntEnum
from typing import Any

from rich.console import Console

from activations.cli import tables
from activations.errors import ActivationsError

out, err = Console(), Console(stderr=True)


class Exit(IntEnum):
    DONE, FAILED, USAGE, HELD, PARTIAL = range(5)


def print_result(data: Any, as_json: bool, show: Callable[[], None]) -> None:
    if as_json:
        print_json(data)
    else:
        show()


def print_json(data: Any) -> None:
    print(json.dumps(data, indent=2))


def report(error: ActivationsError, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"error": str(error)}))
    else:
        err.print(f"[bold red]Error[/] {tables.plain(str(error))}", soft_wrap=True)
