"""The journal that a project names: a file beside the engine, or a schema on a server that several hosts share."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from activations.config import Project
from activations.digests import Digester, derived_key
from activations.errors import PackageMissing
from activations.journal.journal import Journal
from activations.journal.sqlite import SQLiteStore
from activations.journal.store import Store


def open_journal(project: Project, now: Callable[[], datetime]) -> Journal:
    """Close it when done."""
    key = project.hash_key()
    return Journal(
        _open_postgres(project)
        if project.settings.journal.type == "postgres"
        else SQLiteStore(project.var / "journal.sqlite3"),
        audit_key=derived_key(key, "audit"),
        key_check=Digester.for_use(key, "check")("this journal"),
        now=now,
    )


def _open_postgres(project: Project) -> Store:
    try:
        from activations.journal.postgres import PostgresStore  # an extra that few have installed
    except ModuleNotFoundError as error:
        raise PackageMissing("the journal", error.name) from None
    return PostgresStore(project.journal_dsn(), schema=project.settings.journal.schema_name)
