"""Audiences as dbt describes them.

dbt's `manifest.json` is the contract between who and how: a sync may only read a public model with an enforced
contract, and only columns that the contract names, with a type that can be compared and sent.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from activations.config import Project, Sync
from activations.errors import ConfigError, RelationMissing
from activations.model import SyncMode

_TEXT = re.compile(r"^(text|string|(n|bp)?(var)?char\b.*|character varying.*)$", re.I)
_FLOAT = re.compile(r"^(float\w*|double( precision)?|real)$", re.I)
_SCALAR = re.compile(
    r"^(text|string|(n|bp)?(var)?char\b.*|character varying.*|u?(tiny|small|big|huge)?int(eger)?\d*|int\d+"
    r"|(decimal|numeric|number)\b.*|bool(ean)?|date|timestamp.*|datetime.*|uuid)$",
    re.I,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    name: str
    data_type: str
    pii: str | None
    """Which personal data it holds (email, phone, name, address), or None."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Relation:
    """Where a dbt model lives. `schema` and `name` are as dbt wrote them."""

    schema: str
    name: str

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Audience:
    """A public, contracted model."""

    name: str
    relation: Relation
    primary_key: tuple[str, ...]
    columns: Mapping[str, Column]
    purpose: str | None
    channels: tuple[str, ...]
    owner: str | None
    description: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """The part of dbt's manifest that the engine needs."""

    path: Path
    nodes: Mapping[str, Mapping[str, Any]] = field(repr=False)
    """dbt model name → node."""

    def relation(self, model: str) -> Relation:
        """Where the model of that name lives."""
        node = self._node(model, key=None, file=self.path)
        return Relation(schema=node["schema"], name=node.get("alias") or node["name"])

    def audience(self, name: str, file: Path) -> Audience:
        """The audience a sync's `audience:` names; `file` is the sync's YAML, for the error."""
        node = self._node(name, key="audience", file=file)
        config = node.get("config", {})
        if node.get("access") != "public":
            raise ConfigError(
                f"`{name}` is {node.get('access', 'private')}: a sync reads public models only",
                file=file,
                key="audience",
                fix="Use an aud_ model, or make this one public on purpose",
            )
        if not config.get("contract", {}).get("enforced"):
            raise ConfigError(
                f"`{name}` has no enforced contract",
                file=file,
                key="audience",
                fix="Add `contract: {enforced: true}` to the model's config",
            )
        return _audience(node, config.get("meta") or node.get("meta") or {}, file)

    def _node(self, model: str, *, key: str | None, file: Path) -> Mapping[str, Any]:
        if model not in self.nodes:
            known = ", ".join(
                sorted(name for name, node in self.nodes.items() if node.get("access") == "public")
            )
            raise ConfigError(
                f"dbt has no model `{model}`",
                file=file,
                key=key,
                fix=f"Public models: {known or 'none'}. If it is new, run `dbt parse`",
            )
        return self.nodes[model]


def load_manifest(project: Project) -> Manifest:
    """The manifest that `dbt parse` or `dbt build` last wrote."""
    path = project.manifest_path
    try:
        stamp = path.stat().st_mtime_ns
    except FileNotFoundError:
        if not project.dbt_project_dir.is_dir():
            raise ConfigError(
                f"there is no folder `{project.settings.dbt.project_dir}` in {project.root}",
                file=project.root / "activations/project.yml",
                key="dbt.project_dir",
                fix="Name the folder that holds dbt_project.yml",
            ) from None
        raise RelationMissing(
            "dbt has not been run yet: there is no manifest.json. Run `dbt build --project-dir dbt --profiles-dir dbt`"
        ) from None
    return _read(path, stamp)


@lru_cache(maxsize=4)
def _read(path: Path, _stamp: int) -> Manifest:
    try:
        document = json.loads(path.read_bytes())
        nodes = {
            n["name"]: {"columns": {}, **n}
            for n in document["nodes"].values()
            if n["resource_type"] == "model"
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ConfigError(
            "is not a dbt manifest", file=path, fix="Run `dbt parse` to write it anew"
        ) from None
    return Manifest(path, nodes)


def _audience(node: Mapping[str, Any], meta: Mapping[str, Any], file: Path) -> Audience:
    key = meta.get("primary_key")
    columns = {name: _column(name, raw) for name, raw in node["columns"].items()}
    if not isinstance(key, list) or not key or not set(key) <= set(columns):
        raise ConfigError(
            f"`{node['name']}` names no primary key",
            file=file,
            key="audience",
            fix="Add `config: {meta: {primary_key: [person_id]}}` to the model's YAML",
        )
    return Audience(
        name=node["name"],
        relation=Relation(schema=node["schema"], name=node.get("alias") or node["name"]),
        primary_key=tuple(key),
        columns=columns,
        purpose=meta.get("purpose"),
        channels=tuple(meta.get("channels", ())),
        owner=meta.get("owner"),
        description=node.get("description", ""),
    )


def _column(name: str, raw: Mapping[str, Any]) -> Column:
    meta = raw.get("config", {}).get("meta") or raw.get("meta") or {}
    return Column(name=name, data_type=str(raw.get("data_type") or "").strip(), pii=meta.get("pii"))


def check_sync(sync: Sync, audience: Audience, person_key: str) -> None:
    """Whether this sync can read this audience: keys, columns, types, purpose. Raises ConfigError."""
    _check_key(sync, audience, person_key)
    for place, column in _used_columns(sync):
        _check_column(sync, audience, place, column)
    if audience.purpose and audience.purpose != sync.purpose:
        raise ConfigError(
            f"`{audience.name}` is built for purpose {audience.purpose}, not {sync.purpose}",
            file=sync.file,
            key="purpose",
            fix="Correct one of the two",
        )
    if audience.channels and sync.channel not in audience.channels:
        raise ConfigError(
            f"`{audience.name}` is built for {', '.join(audience.channels)}, not {sync.channel}",
            file=sync.file,
            key="channel",
            fix="Correct one of the two",
        )


def _check_key(sync: Sync, audience: Audience, person_key: str) -> None:
    wanted = (person_key, sync.occurrence) if sync.mode is SyncMode.APPEND else (person_key,)
    if audience.primary_key != wanted:
        shown = ", ".join(str(part) for part in wanted)
        raise ConfigError(
            f"mode {sync.mode} needs an audience whose primary key is [{shown}], `{audience.name}` has [{', '.join(audience.primary_key)}]",
            file=sync.file,
            key="audience",
            fix="Change the audience's grain or the mode",
        )
    for name in audience.primary_key:
        if audience.columns[name].pii:
            raise ConfigError(
                f"the key column `{name}` holds personal data ({audience.columns[name].pii}), and keys are kept in the ledger",
                file=sync.file,
                key="audience",
                fix="Use a key that says nothing about the person",
            )


def _used_columns(sync: Sync) -> list[tuple[str, str]]:
    identifiers = [(f"identifiers.{name}", column) for name, column in sync.identifiers.items()]
    fields = [(f"fields.{name}", mapping.column) for name, mapping in sync.fields.items()]
    return identifiers + fields


def _check_column(sync: Sync, audience: Audience, place: str, name: str) -> None:
    column = audience.columns.get(name)
    if column is None:
        raise ConfigError(
            f"`{audience.name}` has no column `{name}`",
            file=sync.file,
            key=place,
            fix=f"It has: {', '.join(audience.columns)}",
        )
    if place.startswith("identifiers.") and (not _TEXT.match(column.data_type) or "[" in column.data_type):
        raise ConfigError(
            f"an identifier must be text, `{name}` is {column.data_type}",
            file=sync.file,
            key=place,
            fix="Cast it in the audience model",
        )
    if _FLOAT.match(column.data_type):
        raise ConfigError(
            f"`{name}` is {column.data_type}, whose last digits change from run to run",
            file=sync.file,
            key=place,
            fix="Round it to a decimal(…) in the audience model",
        )
    if not _SCALAR.match(column.data_type) or "[" in column.data_type:
        raise ConfigError(
            f"`{name}` is {column.data_type or 'untyped'}, which cannot be sent",
            file=sync.file,
            key=place,
            fix="Use text, a number, a date, a timestamp or a boolean",
        )
