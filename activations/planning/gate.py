"""What has to be true of audience, eligibility and holdouts before anything is compared.

What dbt promised must be there: a plan that cannot see is an error, never "no change".
"""

from __future__ import annotations

from dataclasses import dataclass

import sqlglot.expressions as exp
from sqlglot import select

from activations.errors import PlanRejected, RelationMissing
from activations.planning.expressions import literal, table, text
from activations.planning.statements import Statements
from activations.warehouses import Session

_COLUMNS = (
    "channel",
    "purpose",
    "is_eligible",
    "is_deferred",
    "first_blocker",
    "blockers",
    "consent_event_id",
    "evaluated_at",
)


def check_relations(session: Session, statements: Statements) -> None:
    """Everything that the statements name is there."""
    audience, sync = statements.audience, statements.sync
    columns = session.columns(audience.relation)
    if not columns:
        raise RelationMissing(
            f"{audience.relation} has not been built. Run `dbt build --select +{audience.name}`"
        )
    missing = [name for name in (*audience.primary_key, *sync.columns) if name not in columns]
    if missing:
        raise RelationMissing(
            f"{audience.relation} has no column {', '.join(missing)}, though the manifest says so. Run `dbt build --select {audience.name}`"
        )
    missing = sorted({statements.person_key, *_COLUMNS} - set(session.columns(statements.eligibility)))
    if missing:
        raise RelationMissing(
            f"{statements.eligibility} has no column {', '.join(missing)}. Run `dbt build --select {statements.eligibility.name}`"
        )


def check_rules(session: Session, statements: Statements, people: exp.Query | None = None) -> None:
    """Eligibility and holdouts speak about every person once: twice would be a yes and a no at a time. `people`: only
    about these, by key."""
    rules, sync = Rules(statements), statements.sync
    [(found, distinct)] = session.rows(rules.eligibility_count(people))
    if found != distinct:
        raise PlanRejected(
            f"{statements.eligibility} says {found} things about {distinct} people for {sync.channel} × {sync.purpose}: there may be one row per person. Correct the model"
        )
    if sync.holdout:
        [(found, distinct)] = session.rows(rules.holdout_count(people))
        if found != distinct:
            raise PlanRejected(
                f"{statements.holdouts} assigns somebody twice to `{sync.holdout}`. Correct the model"
            )


def check_spoken(session: Session, statements: Statements) -> None:
    """Somebody wrote rules for this channel and purpose, and the holdout is one that dbt knows."""
    rules, sync = Rules(statements), statements.sync
    if not session.rows(rules.any_rule()):
        raise PlanRejected(
            f"no eligibility rule speaks about {sync.channel} × {sync.purpose}, so nobody may be reached. Add it to dbt/models/eligibility, or correct channel and purpose in {sync.file.name}"
        )
    if sync.holdout and not session.rows(rules.any_holdout()):
        raise PlanRejected(
            f"there is no holdout `{sync.holdout}` in {statements.holdouts}. Define it in dbt, or correct `holdout:` in {sync.file.name}"
        )


@dataclass(frozen=True, slots=True)
class Rules:
    """What is asked of eligibility and holdouts themselves."""

    statements: Statements

    def any_rule(self) -> exp.Select:
        return self._spoken("1").limit(1)

    def any_holdout(self) -> exp.Select:
        return self._assigned("1").limit(1)

    def eligibility_count(self, people: exp.Query | None) -> exp.Select:
        """How many rules there are about anybody for this channel and purpose, and about how many people."""
        return self._among(self._spoken(self._named("e"), self._people("e")), "e", people)

    def holdout_count(self, people: exp.Query | None) -> exp.Select:
        return self._among(self._assigned(self._named("h"), self._people("h")), "h", people)

    def eligibility_of(self, person: str) -> exp.Select:
        """blockers, is_deferred, consent_event_id, evaluated_at of one person for this channel and purpose."""
        mine = exp.EQ(this=text(self.statements.person_key, "e"), expression=literal(person))
        return (
            select("e.blockers", "e.is_deferred", "e.consent_event_id", "e.evaluated_at")
            .from_(table(self.statements.eligibility, "e"))
            .where(mine, *self.statements.rule("e"))
        )

    def _spoken(self, *columns: str | exp.Expr) -> exp.Select:
        relation = table(self.statements.eligibility, "e")
        return select(*columns).from_(relation).where(*self.statements.rule("e"))

    def _assigned(self, *columns: str | exp.Expr) -> exp.Select:
        mine = exp.column("holdout", "h").eq(self.statements.sync.holdout)
        return select(*columns).from_(table(self.statements.holdouts, "h")).where(mine)

    def _named(self, alias: str) -> exp.Expr:
        return exp.Count(this=exp.column(self.statements.person_key, alias))

    def _people(self, alias: str) -> exp.Expr:
        person = exp.column(self.statements.person_key, alias)
        return exp.Count(this=exp.Distinct(expressions=[person]))

    def _among(self, query: exp.Select, alias: str, people: exp.Query | None) -> exp.Select:
        if people is None:
            return query
        person = exp.column(self.statements.person_key, alias)
        return query.where(exp.In(this=person, query=people.subquery()))
