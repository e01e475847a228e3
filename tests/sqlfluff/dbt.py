"""Stands in for dbt's own macros while SQL is linted: any of them is some expression."""

from collections.abc import Callable


def __getattr__(name: str) -> Callable[..., str]:
    return lambda *arguments, **_: str(arguments[0]) if arguments else name
