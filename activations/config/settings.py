"""The models of `activations/project.yml`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Set
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, StrictFloat, StrictInt, StringConstraints, model_validator

from activations.config import secrets
from activations.config.base import Column, Name, Says, Strict
from activations.config.egress import Egress

MemoryLimit = Annotated[
    str,
    StringConstraints(pattern=r"^(?i)[0-9]+(\.[0-9]+)? ?([KMGT]|[KMGT]i?B|%)$"),  # what DuckDB reads
    Says("must be a number and its unit, such as `2GB` or `1.5GiB`"),
]


def sandbox_address(text: str) -> str:
    """The text, if requests can go there once a path is put behind it; else ValueError."""
    try:
        parts = urlsplit(text)
        is_address = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        is_address = False
    if not is_address or not re.fullmatch(r"[!-~]+", text) or re.search(r"[?#@\\]", text):
        raise ValueError("must be an address, such as `http://127.0.0.1:8765`")
    return text


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
    memory_limit: MemoryLimit | None = None
    """duckdb."""
    dsn: str | None = None
    """postgres: a reference to the connection string, `env:NAME` or `file:path`."""
    wait_seconds: StrictFloat = Field(60, ge=0)
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
    expires_minutes: StrictInt = Field(60, ge=1)
    folder: str = "plans"
    """Of plan files, relative to the state folder. Hosts that share a journal share it too."""


class Settings(Strict):
    """`activations/project.yml`."""

    warehouse: WarehouseSettings = WarehouseSettings()
    journal: JournalSettings = JournalSettings()
    dbt: DbtSettings = DbtSettings()
    plan: PlanSettings = PlanSettings()
    egress: Egress = Egress()
    sandbox_url: Annotated[str, AfterValidator(sandbox_address)] = "http://127.0.0.1:8765"
