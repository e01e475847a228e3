"""The accounts at destinations that a project may send to: `activations/destinations.yml`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field, StrictFloat, StrictInt

from activations.config import secrets
from activations.config.base import Strict, is_name
from activations.config.documents import parse_model, read_yaml
from activations.config.egress import Egress, check_address
from activations.config.kinds import Kind, own_host, secret_keys
from activations.errors import ConfigError


class Environment(StrEnum):
    """SANDBOX talks to the local stand-in with its own credentials; LIVE talks to the vendor."""

    SANDBOX = "sandbox"
    LIVE = "live"


class _AccountFile(Strict):
    """The keys every account has; the rest belongs to its kind."""

    model_config = ConfigDict(extra="allow", frozen=True)

    kind: str
    environment: Environment
    rate_limit: StrictFloat | None = Field(None, gt=0)
    concurrency: StrictInt = Field(4, ge=1, le=64)
    batch_rows: StrictInt | None = Field(None, ge=1)
    compress: Literal["gzip"] | None = None
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


def load_accounts(
    file: Path, root: Path, kinds: Mapping[str, type[Kind]], egress: Egress
) -> dict[str, Account]:
    """Every account by its name. The first thing that cannot work is raised as ConfigError."""
    accounts = _read_accounts(file, root, kinds)
    for account in accounts.values():
        _check_addresses(account, kinds[account.kind], egress)
    return accounts


def _read_accounts(file: Path, root: Path, kinds: Mapping[str, type[Kind]]) -> dict[str, Account]:
    document = read_yaml(file)
    unknown = set(document) - {"destinations"}
    entries = document.get("destinations")
    if unknown or not isinstance(entries, dict):
        raise ConfigError(
            "must hold exactly one key, `destinations`, with an account per name",
            file=file,
            key=", ".join(map(str, unknown)),
            fix="Write `destinations:` and below it a name with its keys",
        )
    return {str(name): _load_account(str(name), entry, file, root, kinds) for name, entry in entries.items()}


def _load_account(name: str, entry: Any, file: Path, root: Path, kinds: Mapping[str, type[Kind]]) -> Account:
    key = f"destinations.{name}"
    if not isinstance(entry, dict) or not is_name(name):
        raise ConfigError(
            "an account is a lower-case name with keys below it",
            file=file,
            key=key,
            fix="Write `kind:`, `environment:` and its credentials below a name such as `crm_webhook`",
        )
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
        secrets.require_reference(options[name], file=file, key=f"{key}.{name}")
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
