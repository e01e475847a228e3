"""Reading one YAML document as hostile input.

PyYAML's safe loader still expands aliases without end, keeps the last of two equal keys without a word and reads
`NO` as false, `on` as true and `12:30` as 750. This loader refuses the first two and follows YAML 1.2 for the rest.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from activations.config import problems
from activations.errors import ConfigError

MAX_BYTES = 256 * 1024
MAX_DEPTH = 20

ModelT = TypeVar("ModelT", bound=BaseModel)


class _Loader(yaml.SafeLoader):
    """YAML 1.2 scalars, no aliases, no duplicate keys, bounded depth."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError(
                f"line {self.peek_event().start_mark.line + 1}: aliases (*name) are not accepted"  # type: ignore[no-untyped-call]
            )
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise yaml.YAMLError(f"nested deeper than {MAX_DEPTH} levels")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str | int | float | bool | None):
                raise yaml.YAMLError(f"line {key_node.start_mark.line + 1}: a key must be a plain word")
            if key in seen:
                raise yaml.YAMLError(f"line {key_node.start_mark.line + 1}: the key {key!r} is given twice")
            seen.add(key)
        return super().construct_mapping(node, deep)


_YAML_1_2 = {
    "tag:yaml.org,2002:bool": (re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), "tTfF"),
    "tag:yaml.org,2002:int": (re.compile(r"^[-+]?[0-9]+$"), "-+0123456789"),
    "tag:yaml.org,2002:float": (
        re.compile(r"^[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?$"),
        "-+0123456789.",
    ),
    "tag:yaml.org,2002:null": (re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""]),
}
_Loader.yaml_implicit_resolvers = {}
for _tag, (_pattern, _first) in _YAML_1_2.items():
    _Loader.add_implicit_resolver(_tag, _pattern, list(_first))


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in `path`; anything else is a ConfigError that names the line."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError("the file does not exist", file=path, fix="Create it or correct the path") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"cannot be read ({type(error).__name__})", file=path, fix="It must be a UTF-8 text file"
        ) from None
    if len(text) > MAX_BYTES:
        raise ConfigError(
            f"is larger than {MAX_BYTES // 1024} KiB", file=path, fix="Split it into several files"
        )
    return _parse(text, path)


def _parse(text: str, path: Path) -> dict[str, Any]:
    try:
        document = yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader made stricter
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(
            f"is not valid YAML: {_first_line(error)}", file=path, fix="Correct the line"
        ) from None
    if document is None:  # nothing but comments: whether that is enough, the model knows
        return {}
    if not isinstance(document, dict):
        raise ConfigError("must hold keys and values", file=path, fix="Write each as `key: value`")
    return document


def _first_line(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    return f"line {mark.line + 1}: {problem}" if mark else str(problem)


def parse_model(
    model: type[ModelT], document: dict[str, Any], path: Path, prefix: str = "", *, show_values: bool = True
) -> ModelT:
    """`document` as `model`. The first problem becomes a ConfigError with key, value and what would be right. Where
    a credential may have been pasted into the wrong key, values are not shown."""
    try:
        return model.model_validate(document)
    except ValidationError as error:
        found = problems.telling(error, document)
        key = ".".join([prefix, *map(str, problems.place(found, document))]).strip(".")
        said, fix = problems.said(model, found, show_values=show_values)
        raise ConfigError(said, file=path, key=key, fix=fix) from None
