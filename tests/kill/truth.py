"""What has to be true once the commands have ended: asked of the other side, the ledger and the journal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from activations.digests import SEPARATOR
from activations.runner import Engine
from tests.kill.receiver import Receiver
from tests.simulation.provider import MESSAGES, PEOPLE
from tests.simulation.world import CANARIES, World, is_bad


def violations(engine: Engine, world: World, receiver: Receiver, said: list[str]) -> list[str]:
    truth = _Truth(engine, world, receiver)
    return [*truth.audience(), *truth.messages(), *truth.books(), *_named(said)]


class _Truth:
    def __init__(self, engine: Engine, world: World, receiver: Receiver) -> None:
        self._engine, self._world, self._receiver = engine, world, receiver

    def _ledger(self, query: str) -> list[tuple[Any, ...]]:
        with self._engine.warehouse().read() as session:
            return session.rows(query)

    def _keys(self, table: str, sync: str) -> set[str]:
        return {
            key
            for (key,) in self._ledger(f"select primary_key from activation.{table} where sync = '{sync}'")
        }

    def audience(self) -> Iterator[str]:
        """I3, I4: everybody who should be there is, with the right row, and nobody else."""
        wanted, held = self._world.expected_people(), list(self._receiver.held.values())
        refused = self._keys("rejected_records", PEOPLE)
        owners = Counter(row["email"] for row in wanted.values())
        for name, row in wanted.items():
            is_shared = owners[row["email"]] > 1
            bad = is_bad({"operation": "added", "identifiers": {"email": row["email"]}, "fields": row})
            if bad and not is_shared and name not in refused:
                yield f"I3: {name} is bad and not visible as rejected"
            if not bad and not is_shared and row not in held:
                yield f"I3: {name} is not there as {row}"
        for row in held:
            if wanted.get(row["person"], {}).get("email") != row["email"]:
                yield f"I4: {row['person']} ({row['email']}) is still there"

    def messages(self) -> Iterator[str]:
        """I2, I7: none twice, and every one is sent, rejected or in doubt."""
        sent, refused = self._keys("sync_snapshot", MESSAGES), self._keys("rejected_records", MESSAGES)
        with self._engine.journal() as journal:
            in_doubt = len(journal.messages_in_doubt(MESSAGES))
        open_ends = 0
        for (person, event), count in self._receiver.deliveries.items():
            key = f"{person}{SEPARATOR}{event}"
            if count > 1:
                yield f"I2: {event} was delivered {count} times"
            if key in refused:
                yield f"I7: {event} is rejected and was delivered"
            open_ends += key not in sent
        for key in sent:
            person, event = key.split(SEPARATOR)
            if not self._receiver.deliveries[person, event]:
                yield f"I7: {event} is sent and never arrived"
        wanted = {f"{p.name}{SEPARATOR}{event}" for p, event in self._world.expected_events()}
        missing = wanted - sent - refused
        if len(missing) > in_doubt or open_ends > in_doubt:
            yield f"I7: {len(missing)} messages have no end, {open_ends} arrived without one, {in_doubt} are in doubt"

    def books(self) -> Iterator[str]:
        """I5, M1: nothing is left to do, and every outcome was counted once."""
        for name in (PEOPLE, MESSAGES):
            counts = self._engine.plan(name).counts
            if counts.planned or (name == PEOPLE and "settling" in counts.waiting_by_reason):
                yield f"I5: {name} still plans {counts}"
        twice = (
            "select 1 from activation.sync_changelog group by journal_id, seq, position having count(*) > 1"
        )
        if self._ledger(twice):
            yield "M1: the changelog counts an outcome twice"
        if plans := sorted(path.name for path in self._engine.plans.glob("*")):
            yield f"M1: plans are left on disk: {plans}"


def _named(said: list[str]) -> Iterator[str]:
    """P1."""
    found = {canary for canary in CANARIES for text in said if canary in text}
    if found:
        yield f"P1: commands print {sorted(found)}"
