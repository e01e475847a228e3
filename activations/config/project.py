"""A project: its settings, the accounts it may send to, and its syncs.

`activations/project.yml` says where the warehouse and dbt are, `activations/destinations.yml` lists accounts, and
every file in `activations/syncs/` is one sync. Which kinds of destinations exist is handed in (`kinds`), so that
there is a single list of them and this package knows no vendor.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from activations.config import secrets
from activations.config.accounts import Account, load_accounts
from activations.config.documents import parse_model, read_yaml
from activations.config.kinds import Kind
from activations.config.places import check_places
from activations.config.settings import Settings, sandbox_address
from activations.config.syncs import Sync, load_syncs
from activations.errors import ConfigError

_SANDBOX_URL = "ACTIVATIONS_SANDBOX_URL"


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
        """Where the stand-ins answer; the variable wins, and `load_project` has looked at it."""
        return os.environ.get(_SANDBOX_URL, self.settings.sandbox_url)

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
    settings = _load_settings(home / "project.yml", root)
    accounts = load_accounts(home / "destinations.yml", root, kinds, settings.egress)
    syncs = load_syncs(home / "syncs", accounts, kinds)
    check_places(syncs.values(), kinds)
    var = Path(os.environ.get("ACTIVATIONS_VAR", root / "var"))
    return Project(root=root, var=var.resolve(), settings=settings, accounts=accounts, syncs=syncs)


def _load_settings(file: Path, root: Path) -> Settings:
    settings = parse_model(Settings, read_yaml(file), file)
    bundle = settings.egress.ca_bundle
    if bundle and not (root / bundle).is_file():
        raise ConfigError(
            f"there is no file `{bundle}` in {root}",
            file=file,
            key="egress.ca_bundle",
            fix="Correct the path or remove it",
        )
    if _SANDBOX_URL in os.environ:
        _check_sandbox_url(os.environ[_SANDBOX_URL])
    return settings


def _check_sandbox_url(address: str) -> None:
    """An address to which nothing can be sent looks like a sandbox that is down, which is waited for."""
    try:
        sandbox_address(address)
    except ValueError as error:
        raise ConfigError(
            f"{error} (found {address!r})",
            key=f"environment variable {_SANDBOX_URL}",
            fix="Correct it, or unset it to use `sandbox_url` of project.yml",
        ) from None
