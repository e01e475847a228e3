"""A project: its settings, the accounts it may send to, and its syncs.

`activations/project.yml` says where the warehouse and dbt are, `activations/destinations.yml` lists accounts, and
every file in `activations/syncs/` is one sync. Which kinds of destinations exist is handed in (`kinds`), so that
there is a single list of them and this module knows no vendor.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Protocol, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, StringConstraints, model_validator

from activations.config import secrets
from activations.config.documents import parse_model, read_yaml
from activations.config.egress import Egress, check_address, host_of
from activations.errors import ConfigError
from activations.model import Capabilities, Channel, SyncMode

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
Column = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,62}$")]
FieldName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_$][A-Za-z0-9_.$ -]{0,99}$")]


class Kind(Protocol):
    """What the configuration must know about a kind of destination; `destinations.base.Destination` has it."""

    kind: ClassVar[str]
    Config: ClassVar[type[Any]]
    TargetConfig: ClassVar[type[Any]]
    capabilities: ClassVar[Capabilities]

    @classmethod
    def check_mapping(
        cls, identifiers: frozenset[str], fields: frozenset[str], target: Any
    ) -> str | None: ...


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Environment(StrEnum):
    """SANDBOX talks to the local stand-in with its own credentials; LIVE talks to the vendor."""

    SANDBOX = "sandbox"
    LIVE = "live"


class OnNull(StrEnum):
    """What a null becomes: OMIT leaves the destination's value alone, CLEAR empties it."""

    OMIT = "omit"
    CLEAR = "clear"


class FieldMapping(_Strict):
    """Where a field's value comes from. In YAML a bare column name is enough."""

    column: Column
    on_null: OnNull = OnNull.OMIT


class Guard(_Strict):
    """How much a run may change before a person has to look. Shares are of what the destination holds."""

    min_audience_rows: int = Field(1, ge=0)
    """A smaller audience is held; an empty one of messages is not."""
    max_removed_share: float = Field(0.2, ge=0, le=1)
    """Removals of people who asked for it (erased, suppressed, objected, consent withdrawn) never count."""
    max_added_share: float = Field(0.5, ge=0)
    max_changed_share: float = Field(0.5, ge=0, le=1)
    max_added_rows: int | None = Field(None, ge=1)
    """An absolute limit on additions; for a first run and for messages, which know no shares."""
    floor_rows: int = Field(25, ge=0)
    """Changes up to this many rows are never held by a share."""


class WarehouseSettings(_Strict):
    type: Literal["duckdb", "postgres"] = "duckdb"
    path: str = "warehouse.duckdb"
    """duckdb: relative to the state folder (`$ACTIVATIONS_VAR`, default `var/`)."""
    memory_limit: str | None = None
    """duckdb."""
    dsn: str | None = None
    """postgres: a reference to the connection string, `env:NAME` or `file:path`."""
    wait_seconds: float = Field(60, ge=0)
    """How long to wait for the server, and for whoever holds the file or a lock."""

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        """Keys of the other kind would be ignored without a word."""
        foreign = {"duckdb": {"dsn"}, "postgres": {"path", "memory_limit"}}[self.type]
        if found := sorted(foreign & self.model_fields_set):
            raise ValueError(f"`{found[0]}` does not belong to type {self.type}. Remove it")
        if self.type == "postgres" and not secrets.is_reference(self.dsn):
            raise ValueError(
                "type postgres needs `dsn: env:NAME` or `dsn: file:path`, a reference to the connection string"
            )
        return self


class JournalSettings(_Strict):
    type: Literal["sqlite", "postgres"] = "sqlite"
    """sqlite: a file in the state folder, for one host. postgres: a server, for several."""
    dsn: str | None = None
    """postgres: a reference to the connection string, `env:NAME` or `file:path`."""
    schema_name: Name = Field("activations_journal", alias="schema")
    """postgres."""

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        """Keys of the other kind would be ignored without a word."""
        if self.type == "sqlite" and (found := sorted(self.model_fields_set & {"dsn", "schema_name"})):
            raise ValueError(f"`{found[0].removesuffix('_name')}` does not belong to type sqlite. Remove it")
        if self.type == "postgres" and not secrets.is_reference(self.dsn):
            raise ValueError(
                "type postgres needs `dsn: env:NAME` or `dsn: file:path`, a reference to the connection string"
            )
        return self


class DbtSettings(_Strict):
    project_dir: str = "dbt"
    target_path: str = "target"
    person_key: Column = "person_id"
    """The column by which audiences, eligibility and holdouts know a person."""
    eligibility: Name = "fct_eligibility"
    holdouts: Name = "dim_holdouts"
    identifiers: Name = "fct_profile_identifiers"


class PlanSettings(_Strict):
    expires_minutes: int = Field(60, ge=1)
    folder: str = "plans"
    """Of plan files, relative to the state folder. Hosts that share a journal share it too."""


class Settings(_Strict):
    """`activations/project.yml`."""

    warehouse: WarehouseSettings = WarehouseSettings()
    journal: JournalSettings = JournalSettings()
    dbt: DbtSettings = DbtSettings()
    plan: PlanSettings = PlanSettings()
    egress: Egress = Egress()
    sandbox_url: str = "http://127.0.0.1:8765"


class _AccountFile(_Strict):
    """The keys every account has; the rest belongs to its kind."""

    model_config = ConfigDict(extra="allow", frozen=True)

    kind: str
    environment: Environment
    rate_limit: float | None = Field(None, gt=0)
    concurrency: int = Field(4, ge=1, le=64)
    batch_rows: int | None = Field(None, ge=1)
    compress: Literal["gzip"] | None = None
    description: str | None = None


class _SyncFile(_Strict):
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
class Account:
    """One account at a destination. `credentials()` is called when a run starts, never when files are read."""

    name: str
    kind: str
    environment: Environment
    rate_limit: float | None
    """Requests a second; None: what the kind declares."""
    concurrency: int
    """Requests in flight at once."""
    batch_rows: int | None
    """Rows a request; None: as many as the kind takes."""
    compress: Literal["gzip"] | None
    """How bodies are compressed; None: not at all."""
    options: Mapping[str, Any]
    file: Path
    root: Path

    def resolved_options(self, secret_keys: frozenset[str]) -> dict[str, Any]:
        """The options with every credential reference replaced by what it points at."""
        return {
            key: secrets.resolve(value, file=self.file, key=f"destinations.{self.name}.{key}", root=self.root)
            if key in secret_keys
            else value
            for key, value in self.options.items()
        }


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """Everything the YAML says. Reading it opens no warehouse and resolves no credential."""

    root: Path
    var: Path
    settings: Settings
    accounts: Mapping[str, Account]
    syncs: Mapping[str, Sync]

    @property
    def warehouse_path(self) -> Path:
        return self.var / self.settings.warehouse.path

    @property
    def plans_path(self) -> Path:
        return self.var / self.settings.plan.folder

    def warehouse_dsn(self) -> str:
        """The connection string of a warehouse that has one; read when a session opens, never when files are read."""
        return self._dsn(self.settings.warehouse.dsn, "warehouse.dsn")

    def journal_dsn(self) -> str:
        """The connection string of a journal that has one."""
        return self._dsn(self.settings.journal.dsn, "journal.dsn")

    def _dsn(self, reference: str | None, key: str) -> str:
        file = self.root / "activations/project.yml"
        return secrets.resolve(reference or "", file=file, key=key, root=self.root)

    @property
    def dbt_project_dir(self) -> Path:
        return self.root / self.settings.dbt.project_dir

    @property
    def manifest_path(self) -> Path:
        """dbt's own variable wins, so that engine and dbt agree when somebody moves the target folder."""
        target = os.environ.get("DBT_TARGET_PATH", self.settings.dbt.target_path)
        return self.dbt_project_dir / target / "manifest.json"

    @property
    def sandbox_url(self) -> str:
        return os.environ.get("ACTIVATIONS_SANDBOX_URL", self.settings.sandbox_url)

    def hash_key(self) -> bytes:
        return secrets.own_key(self.var / "hash.key")

    def sync(self, name: str) -> Sync:
        """The sync of that name, or an error that lists the names there are."""
        if name not in self.syncs:
            raise ConfigError(
                f"there is no sync `{name}`",
                file=self.root / "activations/syncs",
                fix=f"Known: {', '.join(self.syncs) or 'none'}",
            )
        return self.syncs[name]


def find_root(start: Path | None = None) -> Path:
    """The nearest folder upwards that holds `activations/project.yml`."""
    start = (start or Path(os.environ.get("ACTIVATIONS_PROJECT_DIR", Path.cwd()))).resolve()
    for folder in (start, *start.parents):
        if (folder / "activations" / "project.yml").is_file():
            return folder
    raise ConfigError(
        "no activations/project.yml here or in a folder above",
        file=start,
        fix="Change into the project's folder, or set ACTIVATIONS_PROJECT_DIR",
    )


def load_project(root: Path | None, kinds: Mapping[str, type[Kind]]) -> Project:
    """Read and check every file. The first thing that cannot work is raised as ConfigError."""
    root = find_root(root)
    home = root / "activations"
    settings = parse_model(Settings, read_yaml(home / "project.yml"), home / "project.yml")
    accounts = _load_accounts(home / "destinations.yml", root, kinds)
    for account in accounts.values():
        _check_addresses(account, kinds[account.kind], settings.egress)
    syncs = {file.stem: _load_sync(file, accounts, kinds) for file in _sync_files(home / "syncs")}
    var = Path(os.environ.get("ACTIVATIONS_VAR", root / "var"))
    return Project(root=root, var=var.resolve(), settings=settings, accounts=accounts, syncs=syncs)


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


def _load_accounts(file: Path, root: Path, kinds: Mapping[str, type[Kind]]) -> dict[str, Account]:
    document = read_yaml(file)
    unknown = set(document) - {"destinations"}
    entries = document.get("destinations")
    if unknown or not isinstance(entries, dict):
        raise ConfigError(
            "must hold exactly one key, `destinations`, with an account per name",
            file=file,
            key=", ".join(map(str, unknown)),
        )
    return {str(name): _load_account(str(name), entry, file, root, kinds) for name, entry in entries.items()}


def _load_account(name: str, entry: Any, file: Path, root: Path, kinds: Mapping[str, type[Kind]]) -> Account:
    key = f"destinations.{name}"
    if not isinstance(entry, dict) or not re.fullmatch(r"[a-z][a-z0-9_]{0,63}", name):
        raise ConfigError("an account is a lower-case name with keys below it", file=file, key=key)
    common = parse_model(_AccountFile, entry, file, key)
    if common.kind not in kinds:
        raise ConfigError(
            f"unknown kind `{common.kind}`",
            file=file,
            key=f"{key}.kind",
            fix=f"Known: {', '.join(sorted(kinds))}",
        )
    options = {k: v for k, v in entry.items() if k not in _AccountFile.model_fields}
    _check_options(kinds[common.kind], options, file, key)
    _check_compression(kinds[common.kind], common, file, key)
    shared = {
        name: getattr(common, name)
        for name in ("kind", "environment", "rate_limit", "concurrency", "batch_rows", "compress")
    }
    return Account(name=name, options=options, file=file, root=root, **shared)


def _check_options(kind: type[Kind], options: dict[str, Any], file: Path, key: str) -> None:
    """Unknown keys and literal credentials are refused now; what the references point at is read when a run starts."""
    for name in secret_keys(kind) & set(options):
        if not secrets.is_reference(options[name]):
            raise ConfigError(
                "must be a reference to a credential, not the credential itself",
                file=file,
                key=f"{key}.{name}",
                fix="Write `env:NAME` or `file:path`",
            )
    parse_model(kind.Config, options, file, key, show_values=False)


def _check_compression(kind: type[Kind], account: _AccountFile, file: Path, key: str) -> None:
    if account.compress and not kind.capabilities.accepts_gzip:
        raise ConfigError(
            f"{kind.kind} takes no compressed requests", file=file, key=f"{key}.compress", fix="Remove it"
        )


def _check_addresses(account: Account, kind: type[Kind], egress: Egress) -> None:
    """What people wrote as an address; the sandbox's own replaces it, so only a live one is used."""
    for name in ("base_url", "url"):
        if account.environment is Environment.LIVE and account.options.get(name):
            key = f"destinations.{account.name}.{name}"
            check_address(account.options[name], egress, own_host=own_host(kind), file=account.file, key=key)


def own_host(kind: type[Kind]) -> str | None:
    """The host of the vendor itself, which may always be called."""
    return host_of(kind.Config.model_fields["base_url"].default or "")


def secret_keys(kind: type[Kind]) -> frozenset[str]:
    """The options of a kind that hold credentials: those typed SecretStr."""
    fields = kind.Config.model_fields.items()
    return frozenset(name for name, field in fields if field.annotation in (SecretStr, SecretStr | None))


def _load_sync(file: Path, accounts: Mapping[str, Account], kinds: Mapping[str, type[Kind]]) -> Sync:
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,63}", file.stem):
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
        "title": "Activations sync",
        **_SyncFile.model_json_schema(),
    }
