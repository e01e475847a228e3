"""What a plan is made of, in digests: while all of it is as it was, the plan is as it was.

A plan is a function of the snapshot, the audience, the rules about its people (eligibility, holdouts), the journal's
open rows, the suppressions, and the statements. The position in the ledger stands for the snapshot, which nothing but
a merge moves (`resync` and `forget` delete what is kept here); the rest is read once, as sums of hashes that know no
order. Inputs that differ in one row pass for the same once in 2**63 times, as in the sieve.

What is kept after a run is what the plan after it finds: of a plan that had nothing to send the same once more, and of
one that was delivered whole and left nothing open or waiting, that everybody in scope is unchanged.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import sqlglot.expressions as exp
from sqlglot import condition, select

from activations.planning.comparison import Comparison
from activations.planning.expressions import literal, table
from activations.planning.statements import OPEN_ROWS, SUPPRESSIONS, Statements
from activations.warehouses import Session, Warehouse


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What a plan finds that has nothing to send. `scope` and `difference` count verdicts."""

    scope: Mapping[str, int]
    difference: Mapping[str, int]
    held: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """What the next plan finds if it is made of these inputs."""

    audience: str
    surroundings: str
    finding: Finding


def expected(session: Session, statements: Statements, ledger_position: str) -> Expectation | None:
    """What was kept after the last run, if the snapshot is still the one it speaks of."""
    sync = statements.sync.name
    kept = session.rows(
        "select audience, surroundings, finding from activation.sync_inputs where sync = ? and ledger_position = ? "
        "and snapshot_rows = (select count(*) from activation.sync_snapshot where sync = ?)",
        [sync, ledger_position, sync],
    )
    if not kept:
        return None
    [(audience, surroundings, finding)] = kept
    return Expectation(audience=audience, surroundings=surroundings, finding=Finding(**json.loads(finding)))


def read_audience(session: Session, statements: Statements) -> str:
    """The audience's rows and the rules that make identity and payload of them."""
    return content(*session.rows(Inputs(statements).audience())[0])


def read_surroundings(session: Session, statements: Statements, open_row_columns: Sequence[str]) -> str:
    """Everything else but the snapshot."""
    inputs, sync = Inputs(statements), statements.sync
    contents = {name: content(*line) for name, *line in session.rows(inputs.surroundings(*open_row_columns))}
    everything = [contents, sync.channel.value, sync.purpose, sync.holdout, inputs.comparison()]
    return hashlib.sha256(json.dumps(everything, sort_keys=True).encode()).hexdigest()


def sums(warehouse: Warehouse, values: Sequence[exp.Expr]) -> list[exp.Expr]:
    """Two numbers for the rows of a relation in whatever order, as columns of a query over it."""
    hashes = (warehouse.text_hash(seed, [value.copy() for value in values]) for seed in (0, 1))
    return [exp.alias_(exp.func("sum", hashed), f"sum_{n}") for n, hashed in enumerate(hashes)]


def content(rows: int, *found: int | None) -> str:
    return " ".join(str(number or 0) for number in (rows, *found))


@dataclass(frozen=True, slots=True)
class Inputs:
    """What is asked of everything that a plan is made of."""

    statements: Statements

    def audience(self) -> exp.Select:
        """Its size and its sums."""
        found = sums(self.statements.warehouse, [self.statements.sieve("a")])
        return select("count(*)", *found).from_(exp.alias_(self.statements.source, "a", table=True))

    def surroundings(self, *open_row_columns: str) -> exp.Query:
        """A line for each relation: its name, its size and its sums."""
        lines = [self._line("eligibility", self._eligibility())]
        if self.statements.sync.holdout:
            lines.append(self._line("holdouts", self._holdouts()))
        lines.append(self._line(OPEN_ROWS, select(*open_row_columns).from_(OPEN_ROWS)))
        lines.append(self._line(SUPPRESSIONS, select("digest").from_(SUPPRESSIONS)))
        return exp.union(*lines, distinct=False)

    def comparison(self) -> str:
        """How the audience is compared with what is held, as the warehouse reads it."""
        return Comparison(self.statements.sync).difference().sql(dialect=self.statements.warehouse.dialect)

    def _line(self, name: str, rows: exp.Select) -> exp.Select:
        values = [exp.column(value.alias_or_name) for value in rows.selects]
        found = sums(self.statements.warehouse, values)
        return select(exp.alias_(literal(name), "name"), "count(*)", *found).from_(rows.subquery("r"))

    def _eligibility(self) -> exp.Select:
        """As far as a state sync asks: quiet hours keep no row out."""
        blocker = "case when not coalesce(e.is_eligible, false) then coalesce(e.first_blocker, 'unknown') end"
        columns = [exp.column(self.statements.person_key, "e"), exp.alias_(condition(blocker), "blocker")]
        rules = table(self.statements.eligibility, "e")
        return select(*columns).from_(rules).where(*self.statements.rule("e"))

    def _holdouts(self) -> exp.Select:
        held_out = exp.alias_(condition("coalesce(h.is_held_out, true)"), "is_held_out")
        mine = exp.column("holdout", "h").eq(self.statements.sync.holdout)
        relation = table(self.statements.holdouts, "h")
        return select(exp.column(self.statements.person_key, "h"), held_out).from_(relation).where(mine)
