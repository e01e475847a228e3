"""Connection strings of Postgres that say something else than was meant.

In a URL, an `@` or a `/` that stands in a password as it is ends the password there. libpq takes the rest of it for a
host, a port or a database, and its errors repeat those.
"""

from __future__ import annotations

import psycopg
from psycopg.conninfo import conninfo_to_dict

DSN_FIX = "Use postgresql://user:password@host/database, and write @ in a password as %40, / as %2F"


def check_dsn(dsn: str) -> None:
    """Raises ProgrammingError, as psycopg does for what is no connection string at all."""
    if "@" in str(conninfo_to_dict(dsn).get("host", "")) or _cuts_a_password(dsn):
        raise psycopg.ProgrammingError("a password in the connection string ends too early")


def _cuts_a_password(dsn: str) -> bool:
    """Whether a URL has an `@` beside the one before its host. Those of the query belong to its values."""
    if not dsn.startswith(("postgresql://", "postgres://")):
        return False
    authority, _, database = dsn.partition("://")[2].partition("?")[0].partition("/")
    return authority.count("@") > 1 or "@" in database
