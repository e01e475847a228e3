"""The syncs of a project: every file in `activations/syncs/` is one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, StrictFloat, StrictInt

from activations.config.accounts import Account
from activations.config.base import Column, FieldName, Name, Strict, is_name
from activations.config.documents import parse_model, read_yaml
from activations.config.kinds import Kind
from activations.errors import ConfigError
from activations.model import Capabilities, Channel, SyncMode


class OnNull(StrEnum):
    """What a null becomes: OMIT leaves the destination's value alone, CLEAR empties it."""

    OMIT = "omit"
    CLEAR = "clear"


class FieldMapping(Strict):
    """Where a field's value comes from. In YAML a bare column name is enough."""

    column: Column
    on_null: OnNull = OnNull.OMIT


class Guard(Strict):
    """How much a run may change before a person has to look. Shares are of what the destination holds."""

    min_audience_rows: StrictInt = Field(1, ge=0)
    """A smaller audience is held; an empty one of messages is not."""
    max_removed_share: StrictFloat = Field(0.2, ge=0, le=1)
    """Removals of people who asked for it (erased, suppressed, objected, consent withdrawn) never count."""
    max_added_share: StrictFloat = Field(0.5, ge=0)
    max_changed_share: StrictFloat = Field(0.5, ge=0, le=1)
    max_added_rows: StrictInt | None = Field(None, ge=1)
    """An absolute limit on additions; for a first run and for messages, which know no shares."""
    floor_rows: StrictInt = Field(25, ge=0)
    """Changes up to this many rows are never held by a share."""


class _SyncFile(Strict):
    """One file in `activations/syncs/`: an audience, where it goes, why it may, and what may leave."""

    audience: Name = Field(description="A public, contracted dbt model (aud_…).")
    destination: Name = Field(description="An account in destinations.yml.")
    channel: Channel = Field(description="How the person is reached; eligibility is asked for this channel.")
    purpose: Name = Field(description="What for; eligibility is asked for this purpose.")
    mode: SyncMode
    identifiers: dict[FieldName, Column] = Field(
        min_length=1, description="Destination's identifier: audience column."
    )
    fields: dict[FieldName, Column | FieldMapping] = Field(
        default_factory=dict, description="Destination's field: audience column."
    )
    target: dict[str, Any] = Field(
        default_factory=dict, description="The place inside the account: list, audience, text."
    )
    occurrence: Column | None = Field(
        None, description="append only: the column that tells one event from the next."
    )
    holdout: Name | None = Field(None, description="A holdout whose members are not sent.")
    guard: Guard = Guard()
    schedule: Literal["after_audience", "manual"] = "after_audience"
    owner: str = Field(min_length=1, description="The team that answers for this sync.")
    description: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sync:
    """One audience to one place at one destination, checked against what that destination can do."""

    name: str
    audience: str
    account: Account
    channel: Channel
    purpose: str
    mode: SyncMode
    identifiers: Mapping[str, str]
    fields: Mapping[str, FieldMapping]
    target: Mapping[str, Any]
    occurrence: str | None
    holdout: str | None
    guard: Guard
    schedule: str
    owner: str
    description: str | None
    capabilities: Capabilities
    place: str
    """A digest of where the people go: account, environment, address and the place inside it."""
    file: Path

    @property
    def batch_rows(self) -> int:
        """Rows a request: what the account asks for, within what the destination takes."""
        return min(
            self.account.batch_rows or self.capabilities.max_batch_rows, self.capabilities.max_batch_rows
        )

    @property
    def concurrency(self) -> int:
        return self.account.concurrency

    @property
    def key_columns(self) -> tuple[str, ...]:
        """The columns of the identifiers that make the destination's key."""
        keys = self.capabilities.key_identifiers
        return tuple(column for name, column in self.identifiers.items() if keys is None or name in keys)

    @property
    def columns(self) -> tuple[str, ...]:
        """Every audience column that this sync reads, once each."""
        used = [*self.identifiers.values(), *(mapping.column for mapping in self.fields.values())]
        return tuple(dict.fromkeys([*used, *([self.occurrence] if self.occurrence else [])]))


def load_syncs(
    folder: Path, accounts: Mapping[str, Account], kinds: Mapping[str, type[Kind]]
) -> dict[str, Sync]:
    """Every sync by its name. The first thing that cannot work is raised as ConfigError."""
    return {file.stem: _load_sync(file, accounts, kinds) for file in _sync_files(folder)}


def _sync_files(folder: Path) -> list[Path]:
    files = sorted([*folder.glob("*.yml"), *folder.glob("*.yaml")])
    if not files:
        raise ConfigError("holds no sync", file=folder, fix="Add a YAML file, see docs/writing-a-sync.md")
    for first, second in pairwise(sorted(files, key=lambda file: file.stem)):
        if first.stem == second.stem:
            raise ConfigError(
                f"the sync `{first.stem}` is defined twice", file=second, fix=f"Remove it or {first.name}"
            )
    return files


def _load_sync(file: Path, accounts: Mapping[str, Account], kinds: Mapping[str, type[Kind]]) -> Sync:
    if not is_name(file.stem):
        raise ConfigError("the file's name is the sync's name: lower-case letters, digits and _", file=file)
    parsed = parse_model(_SyncFile, read_yaml(file), file)
    if parsed.destination not in accounts:
        raise ConfigError(
            f"there is no account `{parsed.destination}`",
            file=file,
            key="destination",
            fix=f"Known: {', '.join(accounts)}",
        )
    account = accounts[parsed.destination]
    kind = kinds[account.kind]
    _check_capabilities(parsed, kind, file)
    target = parse_model(kind.TargetConfig, parsed.target, file, "target")
    _check_mapping(parsed, kind, target, file)
    return _resolve(file, parsed, account, kind)


def _check_capabilities(sync: _SyncFile, kind: type[Kind], file: Path) -> None:
    able = kind.capabilities
    if sync.channel not in able.channels:
        raise ConfigError(
            f"{kind.kind} does not reach people by {sync.channel}",
            file=file,
            key="channel",
            fix=f"It can: {_names(able.channels)}",
        )
    if sync.mode not in able.modes:
        raise ConfigError(
            f"{kind.kind} cannot {sync.mode}", file=file, key="mode", fix=f"It can: {_names(able.modes)}"
        )
    if len({name.lower() for name in sync.fields}) < len(sync.fields):
        raise ConfigError(
            "two fields differ in upper and lower case only", file=file, key="fields", fix="Rename one"
        )
    unknown = set(sync.identifiers) - able.identifiers
    if unknown:
        raise ConfigError(
            f"{kind.kind} knows no identifier `{sorted(unknown)[0]}`",
            file=file,
            key="identifiers",
            fix=f"It knows: {_names(able.identifiers)}",
        )
    if (sync.mode is SyncMode.APPEND) != (sync.occurrence is not None):
        raise ConfigError(
            "belongs to mode append, and append needs it",
            file=file,
            key="occurrence",
            fix="Name the column that tells one event from the next",
        )


def _check_mapping(sync: _SyncFile, kind: type[Kind], target: Any, file: Path) -> None:
    problem = kind.check_mapping(frozenset(sync.identifiers), frozenset(sync.fields), target)
    if problem:
        raise ConfigError(problem, file=file, key="target")


def _names(values: frozenset[Any]) -> str:
    return ", ".join(sorted(map(str, values)))


def _resolve(file: Path, parsed: _SyncFile, account: Account, kind: type[Kind]) -> Sync:
    fields = {
        k: v if isinstance(v, FieldMapping) else FieldMapping(column=v) for k, v in parsed.fields.items()
    }
    copied = (
        "audience",
        "channel",
        "purpose",
        "mode",
        "identifiers",
        "target",
        "occurrence",
        "holdout",
        "guard",
        "schedule",
        "owner",
        "description",
    )
    return Sync(
        name=file.stem,
        account=account,
        fields=fields,
        capabilities=kind.capabilities,
        place=_place(account, parsed.target, kind),
        file=file,
        **{name: getattr(parsed, name) for name in copied},
    )


def _place(account: Account, target: Mapping[str, Any], kind: type[Kind]) -> str:
    inside = {key: target.get(key) for key in sorted(kind.TargetConfig.place)}
    address = {key: account.options.get(key) for key in ("base_url", "url")}
    content = [account.kind, account.name, account.environment.value, address, inside]
    return hashlib.sha256(json.dumps(content, default=str).encode()).hexdigest()[:16]


def sync_json_schema() -> dict[str, Any]:
    """JSON Schema of a sync's YAML, for editors."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **_SyncFile.model_json_schema(),
        "title": "Activations sync",
    }
