"""Who of a batch said no: asked within the transaction that commits the intent to send it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import polars as pl

from activations.digests import SEPARATOR
from activations.model import Operation
from activations.planning import PlanRow, PlanSlice

IS_SPECIAL = "is_special"

_PLAIN_PERSON = rf"^[!-@\[-~]+({SEPARATOR}|$)"
"""Printable ASCII without blanks and capitals: planning compares the person's key as it stands."""
_PLAIN_IDENTIFIER = r"^[!-HJ-~]+$"
"""Printable ASCII without blanks: here the warehouse's `trim` and `lower` are all there is to say. Not `I`, whose
lower case depends on the language a Postgres database was created with."""


@dataclass(slots=True)
class Refusals:
    """Whether somebody may be sent, against every suppression there is.

    Planning has compared every row with the suppressions it knew (`planned`), in SQL, by the person's key and every
    identifier, trimmed and in lower case. So a row is compared here when there is a suppression that planning did not
    know, or when the row is not plain: in plain rows SQL and Python see the very same forms of every value, in others
    Unicode gives Python (NFKC, case folding) more of them. A plain row is not compared again with what it was
    compared with. Removals are never asked.
    """

    compare: Callable[[Sequence[PlanRow], frozenset[str]], list[int]]
    """Positions of the rows that these digests speak of."""
    planned: frozenset[str]
    _known: tuple[frozenset[str], bool] = field(default=(frozenset(), False))

    def among(self, batch: PlanSlice, said_no: frozenset[str]) -> list[int]:
        """Positions that may not be sent. Called by several threads at once."""
        if self._has_news(said_no):
            asked = batch.rows_where(pl.col("verdict") != Operation.REMOVED.value)
        else:
            asked = batch.rows_where(pl.col(IS_SPECIAL)) if batch.total(IS_SPECIAL) else []
        return self.compare(asked, said_no) if asked else []

    def _has_news(self, said_no: frozenset[str]) -> bool:
        """The journal gives the same object until somebody else says no, so this is worked out once a change."""
        known, has_news = self._known
        if said_no is not known:
            has_news = not said_no <= self.planned
            self._known = said_no, has_news
        return has_news


def is_special(verdicts: pl.Series, row_keys: pl.Series, identifiers: pl.DataFrame) -> pl.Series:
    """Rows that are asked about although nothing is new: they are not plain, and no removals."""
    special = [~pl.lit(row_keys).str.contains(_PLAIN_PERSON)]
    special += [~pl.lit(value).str.contains(_PLAIN_IDENTIFIER) for value in identifiers]
    is_asked = pl.any_horizontal(special) & (pl.lit(verdicts) != Operation.REMOVED.value)
    return pl.select(is_asked.fill_null(value=False)).to_series()
