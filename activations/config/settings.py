"""The models of `activations/project.yml`."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Literal, Self

from pydantic import Field, model_validator

from activations.config import secrets
from activations.config.base import Column, Name, Strict
from activations.config.egress import Egress


def _check_keys(given: Set[str], store: str, dsn: str | None, foreign: Mapping[str, Set[str]]) -> None:
    """Keys of the other type would be ignored without a word, and a connection string in a file ends up in git."""
    if found := sorted(foreign[store] & given):
        key = found[0].removesuffix("_name")  # `schema_name` is `schema` in the file
        raise ValueError(f"`{key}` does not belong to type {store}. Remove it")
    if store == "postgres" and not secrets.is_reference(dsn):
        raise ValueError(
            "type postgres needs `dsn: env:NAME` or `dsn: file:path`, a reference to the connection string"
        )


class WarehouseSettings(Strict):
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
        foreign = {"duckdb": {"dsn"}, "postgres": {"path", "memory_limit"}}
        _check_keys(self.model_fields_set, self.type, self.dsn, foreign)
        return self


class JournalSettings(Strict):
    type: Literal["sqlite", "postgres"] = "sqlite"
    """sqlite: a file in the state folder, for one host. postgres: a server, for several."""
    dsn: str | None = None
    """postgres: a reference to the connection string, `env:NAME` or `file:path`."""
    schema_name: Name = Field("activations_journal", alias="schema")
    """postgres."""

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        foreign = {"sqlite": {"dsn", "schema_name"}, "postgres": set()}
        _check_keys(self.model_fields_set, self.type, self.dsn, foreign)
        return self


class DbtSettings(Strict):
    project_dir: str = "dbt"
    target_path: str = "target"
    person_key: Column = "person_id"
    """The column by which audiences, eligibility and holdouts know a person."""
    eligibility: Name = "fct_eligibility"
    holdouts: Name = "dim_holdouts"
    identifiers: Name = "fct_profile_identifiers"


class PlanSettings(Strict):
    expires_minutes: int = Field(60, ge=1)
    folder: str = "plans"
    """Of plan files, relative to the state folder. Hosts that share a journal share it too."""


class Settings(Strict):
    """`activations/project.yml`."""

    warehouse: WarehouseSettings = WarehouseSettings()
    journal: JournalSettings = JournalSettings()
    dbt: DbtSettings = DbtSettings()
    plan: PlanSettings = PlanSettings()
    egress: Egress = Egress()
    sandbox_url: str = "http://127.0.0.1:8765"
