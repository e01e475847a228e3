"""Between a planned row and what travels: the change a destination sees, the keys the journal asks for, the outcome
that is kept. Pure, apart from the randomness inside the seal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from activations.config import OnNull, Sync
from activations.delivery.columns import CONTENT, WRITTEN
from activations.delivery.sealing import Sealer
from activations.digests import SEPARATOR, Digester, forms_of_identity
from activations.journal import RowInDoubt, RowOutcome
from activations.model import Batch, Change, Later, Operation, Outcome, RowResult, SyncMode
from activations.planning import PlanRow, PlanSlice


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """How the rows of one sync are written, named and hidden."""

    sync: Sync
    place: str
    """Where the sync points to; the same message at another place is another message."""
    pseudonyms: Digester
    """Of this sync, as `messages` and `batches`."""
    messages: Digester
    suppressions: Digester
    batches: Digester
    sealer: Sealer

    # -- out ---------------------------------------------------------------------------------------------------

    def batch(self, run_id: str, rows: PlanSlice) -> Batch:
        content = str(rows.text(CONTENT)[: -len(SEPARATOR)], "utf-8")
        return Batch(
            sync=self.sync.name,
            run_id=run_id,
            number=next(rows.positions),
            changes=Later(len(rows), lambda: [self._change(row) for row in rows.rows]),
            idempotency_key=self.batches(*self._occasion(run_id), content),
            written=_written(rows),
        )

    def _occasion(self, run_id: str) -> list[str]:
        """State may return to what it was, and then has to be sent again; a message is the same one for ever."""
        return [] if self.sync.mode is SyncMode.APPEND else [run_id]

    def _change(self, row: PlanRow) -> Change:
        removed = row.operation is Operation.REMOVED
        return Change(
            key=str(row.position),
            operation=row.operation,
            identifiers=self.sealer.open(row.sealed) if removed else _given(row.identifiers),
            fields={} if removed else self._fields(row),
            destination_key=row.destination_key,
            pseudonym=self.pseudonym(row),
        )

    def _fields(self, row: PlanRow) -> dict[str, object]:
        """Nulls are left out unless the mapping says that they clear the destination's value."""
        mappings = self.sync.fields
        return {k: v for k, v in row.fields.items() if v is not None or mappings[k].on_null is OnNull.CLEAR}

    def pseudonym(self, row: PlanRow | RowInDoubt) -> str:
        """Of the person at this destination; of an occurrence where occurrences are sent."""
        occurrence = [row.row_key] if self.sync.mode is SyncMode.APPEND else []
        return self.pseudonyms(row.identity, *occurrence)

    # -- keys --------------------------------------------------------------------------------------------------

    def message_keys(self, rows: Sequence[PlanRow]) -> dict[int, str]:
        """Position → the name under which a message passes its one-way door: one per person and occurrence, for ever."""
        if self.sync.mode is not SyncMode.APPEND:
            return {}
        return {row.position: self.messages(self.place, row.row_key) for row in rows}

    def refused(self, rows: Sequence[PlanRow], said_no: frozenset[str]) -> list[int]:
        """Positions of rows whose person said no, by any of their identifiers."""
        return [row.position for row in rows if not said_no.isdisjoint(self._digests(row))]

    def _digests(self, row: PlanRow) -> list[str]:
        person = row.row_key.split(SEPARATOR)[0]
        values = (person, *_given(row.identifiers).values())
        return [self.suppressions(form) for value in values for form in forms_of_identity(value)]

    # -- back --------------------------------------------------------------------------------------------------

    def outcome(self, row: PlanRow, result: RowResult) -> RowOutcome:
        return RowOutcome(
            position=row.position,
            row_key=row.row_key,
            identity=row.identity,
            operation=row.operation,
            outcome=result.outcome,
            reason=result.reason,
            payload_hash=row.payload_hash,
            destination_key=result.destination_key or row.destination_key,
            sealed=self._sealed(row) if result.outcome is Outcome.UNKNOWN else None,
        )

    def lost(
        self, rows: Sequence[PlanRow], refused: Sequence[tuple[int, Outcome, str | None]]
    ) -> list[RowOutcome]:
        """The outcomes of a batch whose engine died: nobody knows, except of rows that were refused at the claim."""
        known = {position: (outcome, reason) for position, outcome, reason in refused}
        unknown = (Outcome.UNKNOWN, "interrupted")
        said = [(row, *known.get(row.position, unknown)) for row in rows]
        return [
            self.outcome(row, RowResult(key=str(row.position), outcome=o, reason=why)) for row, o, why in said
        ]

    def _sealed(self, row: PlanRow) -> bytes | None:
        """The identifiers of a row in doubt, where the destination has not named the row yet and will not find it by
        its pseudonym. Messages are never removed, so nothing of theirs is kept."""
        has_name = row.destination_key is not None or self.sync.capabilities.called_by_pseudonym
        if has_name or self.sync.mode is SyncMode.APPEND:
            return None
        return row.sealed if row.operation is Operation.REMOVED else self.sealer.seal(_given(row.identifiers))


def _written(rows: PlanSlice) -> dict[str, memoryview] | None:
    names = [name for name in rows.texts if name.startswith(WRITTEN)]
    return {name.removeprefix(WRITTEN): rows.text(name) for name in names} or None


def _given(identifiers: Mapping[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in identifiers.items() if value is not None}
