"""Several hosts on one journal: the lease of a server, as the Postgres journal takes and renews it, on virtual time.

The statements of that lease run on SQLite here, with the scheduler's time as the server's clock. What Postgres itself
does with them is what tests/journal is about.
"""

from __future__ import annotations

from typing import Any

from activations.journal.postgres import PostgresStore, Timing
from activations.journal.sqlite import SQLiteStore
from tests.simulation.ports import Ports, moment

_IN_SQLITE = (
    (" for update", ""),
    ("make_interval(secs => ?)", "?"),
    ("clock_timestamp()", "server_seconds()"),
)


def leased_store(ports: Ports) -> type[SQLiteStore]:
    """A store that a stalled host can lose."""

    class LeasedStore(SQLiteStore):
        _timing = Timing()
        held = PostgresStore.held
        renew = PostgresStore.renew
        _beat = PostgresStore._beat

        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self._db.create_function("server_seconds", 0, lambda: ports.scheduler.now)

        def _take(self, sync: str, owner: str) -> int:
            """Whoever takes over from a process that stalls cannot know what it had sent. Asked before and after: we may
            stall ourselves between the question and the taking."""
            is_held = super().rows("select 1 from lease where sync = ? and until is not null", sync)
            epoch = PostgresStore._take(self, sync, owner)  # type: ignore[arg-type]
            if is_held or super().rows("select 1 from message where sync = ? and state = 'in_flight'", sync):
                ports.on_takeover()
            return epoch

        def run(self, statement: str, *parameters: Any) -> int:
            return super().run(_translated(statement), *parameters)

        def rows(self, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
            found = super().rows(_translated(query), *parameters)
            if query.startswith("select owner, until"):
                return [(owner, until and moment(float(until)), is_over) for owner, until, is_over in found]
            return found

    return LeasedStore


def _translated(statement: str) -> str:
    for old, new in _IN_SQLITE:
        statement = statement.replace(old, new)
    return statement
