"""Comparing an audience with what its destination holds, in the cheapest way that misses nothing: not at all when the
inputs are those of the last plan, in one pass when nothing is held yet, closely for what the sieve leaves, or everything.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import sqlglot.expressions as exp

from activations.model import Operation, SyncMode
from activations.planning.comparison import Comparison
from activations.planning.freezing import Frozen, freeze
from activations.planning.gate import check_rules
from activations.planning.inputs import Expectation, Finding, expected, read_audience, read_surroundings
from activations.planning.refreshing import refresh
from activations.planning.rows import SHARED, SUSPECTS, Rows
from activations.planning.sieve import HELD, SOURCE, Sieve, is_worthwhile, sift
from activations.planning.statements import (
    DIFFERENCE,
    DUPLICATES,
    KNOWN,
    OPEN_ROWS,
    SCOPE,
    SNAPSHOT,
    SUPPRESSIONS,
    Statements,
)
from activations.warehouses import Session

STREAM_ROWS = 4096

OPEN_ROW_COLUMNS: Mapping[str, Any] = {
    "row_key": pl.String,
    "identity": pl.String,
    "state": pl.String,
    "payload_hash": pl.String,
    "destination_key": pl.String,
    "sealed": pl.Binary,
    "maybe": pl.Boolean,
    "is_due": pl.Boolean,
}
"""Columns of `PlanInput.open_rows`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanInput:
    """What planning takes from outside the warehouse: the journal's word, and the moment."""

    open_rows: pa.Table
    """Columns OPEN_ROW_COLUMNS: rows in doubt, settling or rejected."""
    suppressions: Sequence[str]
    """Digests of everybody who said no since the warehouse was built, for this channel."""
    ledger_position: str
    approved: frozenset[str]
    """Content hashes of plans that somebody lets pass."""
    installation_key: bytes
    now: datetime
    path: Path
    """Where the plan file goes."""

    @property
    def has_due(self) -> bool:
        """Whether a row in doubt has to be asserted once more."""
        return pl.Series(self.open_rows.column("is_due")).any()

    @property
    def has_rejected(self) -> bool:
        # By polars: pyarrow imports pandas to compare with Python's own text, half a second and 50 MB.
        return (pl.Series(self.open_rows.column("state")) == "rejected").any()


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """What a comparison found. `scope` and `difference` count verdicts."""

    scope: Mapping[str, int]
    difference: Mapping[str, int]
    asserted_again: Mapping[str, int]
    held: int
    frozen: Frozen
    closed_rejections: Sequence[tuple[str, str]]
    audience: str | None = None
    """Its content, where it was found on the way. See `planning/inputs.py`."""
    afterwards: Expectation | None = None


def compared(session: Session, statements: Statements, given: PlanInput) -> Compared:
    _load(session, given)
    if not is_worthwhile(session, statements):
        return _looked_at(session, statements, given, is_large=False)
    last = expected(session, statements, given.ledger_position)
    surroundings = read_surroundings(session, statements, list(OPEN_ROW_COLUMNS))
    if last and last.surroundings == surroundings and last.audience == read_audience(session, statements):
        return _as_expected(session, statements, given, last.finding)
    found = _looked_at(session, statements, given, is_large=True)
    finding = _next_finding(given, found)
    if not finding:
        return found
    audience = found.audience or read_audience(session, statements)
    return replace(
        found, afterwards=Expectation(audience=audience, surroundings=surroundings, finding=finding)
    )


def _as_expected(session: Session, statements: Statements, given: PlanInput, finding: Finding) -> Compared:
    """Nothing to send, as was foreseen."""
    reader = session.stream(Rows(statements).none(), STREAM_ROWS)
    return Compared(
        scope=finding.scope,
        difference=finding.difference,
        asserted_again={},
        held=finding.held,
        frozen=freeze([reader], given.path),
        closed_rejections=[],
    )


def _next_finding(given: PlanInput, found: Compared) -> Finding | None:
    """What the next plan finds of the same inputs once this one is delivered whole, where that is known."""
    planned = {operation.value: found.difference.get(operation, 0) for operation in Operation}
    left = {verdict: n for verdict, n in found.difference.items() if verdict not in planned}
    if any(planned.values()) and (left or given.open_rows.num_rows):
        return None
    if found.closed_rejections:
        return None
    held = found.held + planned[Operation.ADDED] - planned[Operation.REMOVED]
    return Finding(scope=found.scope, difference=left, held=held)


def _looked_at(session: Session, statements: Statements, given: PlanInput, *, is_large: bool) -> Compared:
    if not given.open_rows.num_rows and not session.rows(Comparison(statements.sync).any_held()):
        return _compared_first(session, statements, given)
    return _compared_with_held(session, statements, given, is_large=is_large)


def _load(session: Session, given: PlanInput) -> None:
    session.load(OPEN_ROWS, given.open_rows)
    session.load(
        SUPPRESSIONS, pl.DataFrame({"digest": given.suppressions}, schema={"digest": pl.String}).to_arrow()
    )


def _compared_first(session: Session, statements: Statements, given: PlanInput) -> Compared:
    """Nothing is held, nothing is open: everybody in scope is added, and one pass over the audience finds them."""
    rows = Rows(statements)
    session.keep(DUPLICATES, statements.duplicates(statements.source))
    if statements.sync.mode is SyncMode.APPEND:
        session.keep(SHARED, rows.nobody())
    else:
        session.keep(SUSPECTS, rows.suspects())
        session.keep(SHARED, rows.shared())
    reader = session.stream(rows.first(), STREAM_ROWS)
    frozen = freeze([reader], given.path)
    if [(frozen.verdicts.total(),)] != session.rows(statements.audience_size()):
        check_rules(session, statements)  # somebody was joined to two rules
    scope, difference = _first_verdicts(frozen.verdicts)
    return Compared(
        scope=scope, difference=difference, asserted_again={}, held=0, frozen=frozen, closed_rejections=[]
    )


def _first_verdicts(found: Mapping[str, int]) -> tuple[dict[str, int], dict[str, int]]:
    """Who is out by the rules, and what becomes of those in scope."""
    difference = {v: n for v, n in found.items() if v in ("added", _SHARED) or v.startswith("waiting:")}
    scope = {v: n for v, n in found.items() if v not in difference}
    return scope | {"in_scope": sum(difference.values())}, difference


_SHARED = "invalid:shared_identifier"


def _compared_with_held(
    session: Session, statements: Statements, given: PlanInput, *, is_large: bool
) -> Compared:
    sifted = sift(session, statements) if is_large else None
    people = Sieve(statements).people() if sifted and sifted.rules_are_single else None
    check_rules(session, statements, people)
    source = exp.to_table(SOURCE) if sifted else statements.source
    held = exp.to_table(HELD) if sifted else SNAPSHOT
    settled = sifted.settled if sifted else 0
    difference = _difference(session, statements, source, held, is_sieved=bool(sifted))
    scope = dict(session.rows(Comparison.scope_counts()))
    again = dict(session.rows(Comparison.asserted_again())) if given.has_due else {}
    closed = session.rows(Comparison(statements.sync).closed_rejections()) if given.has_rejected else []
    holds = session.rows(Comparison.held_count())[0][0]
    if is_large:
        refresh(session, statements, given.path)
    return Compared(
        scope=scope | {"in_scope": scope.get("in_scope", 0) + settled},
        difference=difference,
        asserted_again=again,
        held=holds + settled,
        frozen=freeze(_streams(session, statements, source, difference), given.path),
        closed_rejections=[(row[0], row[1]) for row in closed],
        audience=sifted.audience if sifted else None,
    )


def compare(session: Session, statements: Statements, given: PlanInput) -> None:
    """Make the temporary relations SCOPE, KNOWN and DIFFERENCE, of the whole audience."""
    _load(session, given)
    _difference(session, statements, statements.source, SNAPSHOT, is_sieved=False)


def _difference(
    session: Session,
    statements: Statements,
    source: exp.Table,
    held: exp.Table,
    *,
    is_sieved: bool,
) -> dict[str, int]:
    """How often each verdict came. Only what is added can share its identity with somebody."""
    session.keep(DUPLICATES, statements.duplicates(source))
    session.keep(SCOPE, statements.scope(source))
    comparison = Comparison(statements.sync)
    session.keep(KNOWN, comparison.known(held))
    session.keep(DIFFERENCE, comparison.difference())
    found = dict(session.rows(comparison.difference_counts()))
    if statements.sync.mode is SyncMode.APPEND or "added" not in found:
        return found
    session.keep(f"{DIFFERENCE}_unshared", comparison.without_shared_identities(is_sieved=is_sieved))
    session.run(f"drop table {DIFFERENCE}")
    session.run(f"alter table {DIFFERENCE}_unshared rename to {DIFFERENCE}")
    return dict(session.rows(comparison.difference_counts()))


def _streams(
    session: Session,
    statements: Statements,
    source: exp.Table,
    difference: Mapping[str, int],
) -> Iterator[pa.RecordBatchReader]:
    """Removals, then the rest: one after the other, since a session reads one stream at a time."""
    rows = Rows(statements)
    if difference.get("removed"):
        yield session.stream(rows.removals(), STREAM_ROWS)
    yield session.stream(rows.assertions(source), STREAM_ROWS)
