"""Stands in for dbt's adapter while SQL is linted: a dispatched macro is some expression of its arguments."""

from collections.abc import Callable


def dispatch(name: str, *_: object) -> Callable[..., str]:
    return lambda *arguments, **__: f"{name}({', '.join(map(str, arguments))})"


def get_relation(*_: object, **__: object) -> None:
    return None
