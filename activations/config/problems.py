"""What is wrong with a document, in words of our own: pydantic's speak of its insides."""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

# What people can get wrong. What a field refuses for a reason of its own, it says itself.
_WORDS = {
    "string_type": "must be text",
    "string_too_short": "must have {min_length} or more characters",
    "string_too_long": "must have at most {max_length} characters",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "greater_than": "must be more than {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than_equal": "must be at most {le:g}",
    "enum": "must be {expected}",
    "literal_error": "must be {expected}",
    "dict_type": "must hold keys and values",
    "model_type": "must hold keys and values",
    "tuple_type": "must be a list, in [brackets]",
    "too_short": "must have {min_length} or more entries",
    "invalid_key": "is no key: keys are text",
}


def telling(error: ValidationError, document: dict[str, Any]) -> ErrorDetails:
    """The problem that helps most. A misspelt key is also a missing one: the spelling is what helps. Where a value may
    be one of several things, each of them complains: who looked furthest into it is the one that was meant."""
    problems = error.errors(include_url=False)
    misspelt = [found for found in problems if found["type"] == "extra_forbidden"]
    if misspelt:
        return misspelt[0]
    first = place(problems[0], document)
    about_it = [found for found in problems if place(found, document)[: len(first)] == first]
    return max(about_it, key=lambda found: len(place(found, document)))


def place(problem: ErrorDetails, document: dict[str, Any]) -> list[int | str]:
    """The way to it through the file; pydantic also names the members of unions on the way."""
    way: list[int | str] = []
    value: Any = document
    for part in problem["loc"]:
        entries: Any = dict(enumerate(value)) if isinstance(value, list) else value
        if isinstance(entries, dict) and part in entries:
            way, value = [*way, part], entries[part]
    return [*way, problem["loc"][-1]] if problem["type"] == "missing" else way


def said(model: type[BaseModel], problem: ErrorDetails, *, show_values: bool) -> tuple[str, str | None]:
    """What is wrong, and what to do."""
    kind, location, value = problem["type"], problem["loc"], problem["input"]
    if kind == "extra_forbidden":
        return "unknown key", _did_you_mean(str(location[-1]), _keys(model, location[:-1]))
    if kind == "missing":
        return "is missing", f"Add `{location[-1]}:`"
    context = problem.get("ctx", {})
    words = _WORDS[kind].format(**context) if kind in _WORDS else problem["msg"].removeprefix("Value error, ")
    return words + _shown(value, kind, show_values), _fix(kind, value, context)


def _shown(value: Any, kind: str, show_values: bool) -> str:
    """The value found, when showing it cannot give a credential away."""
    if value is None:
        return " (found nothing)"
    if isinstance(value, dict | list) and kind.endswith("_type"):
        return " (found a list)" if isinstance(value, list) else " (found keys and values)"
    is_short = isinstance(value, str | int | float) and len(str(value)) <= 60
    return f" (found {_as_written(value)})" if show_values and is_short else ""


def _as_written(value: str | int | float) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _fix(kind: str, value: Any, context: dict[str, Any]) -> str | None:
    if value in (None, {}, []) or (isinstance(value, str) and not value.strip()):
        return "Fill it in, or remove it where it is optional"
    if kind in ("enum", "literal_error"):
        close = get_close_matches(str(value), re.findall(r"'([^']*)'", context["expected"]), n=1)
        return f"Did you mean `{close[0]}`?" if close else None
    if kind == "string_type" and isinstance(value, str | int | float):
        return "Put it in quotes"
    if kind in ("int_type", "float_type", "bool_type") and _is_quoted(value):
        return "Remove the quotes"
    return None


def _is_quoted(value: Any) -> bool:
    """Whether a text would be a number, true or false without its quotation marks."""
    return isinstance(value, str) and bool(re.fullmatch(r"[-+]?[0-9]+([.][0-9]+)?|true|false", value))


def _did_you_mean(key: str, known: list[str]) -> str:
    close = get_close_matches(key, known, n=1)
    if close:
        return f"Did you mean `{close[0]}`?"
    return f"Known keys: {', '.join(sorted(known))}" if known else "Remove it"


def _keys(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """The keys there can be at this place. Names that people choose, and those of a union's members, lead no deeper."""
    models = [model]
    for part in location:
        inside = [found for m in models for found in _models(_fields(m).get(str(part)))]
        models = inside or models
    return [name for found in models for name in _fields(found)]


def _fields(model: type[BaseModel]) -> dict[str, Any]:
    """Type by key, as the key stands in the file."""
    return {field.alias or name: field.annotation for name, field in model.model_fields.items()}


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The models that a value of this type may hold."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for argument in get_args(annotation) for found in _models(argument)]
