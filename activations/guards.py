"""How much a run may change before a person has to look. Pure arithmetic."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from activations.config import Guard
from activations.model import GuardCheck


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The outline of a plan. `removed` leaves out the people who asked to be removed: they never count."""

    audience_size: int
    held: int
    added: int
    changed: int
    removed: int
    is_append: bool


def checks(guard: Guard, shape: Shape) -> list[GuardCheck]:
    """Every guard of the sync that applies to this plan, in the order in which they speak."""
    return [*_sizes(guard, shape), *_shares(guard, shape)]


def held_because(made: Sequence[GuardCheck], *, approved: bool) -> str | None:
    """What the first guard says that does not pass, or None. An approval of exactly this plan silences them all."""
    return next((check.problem for check in made if check.problem), None) if not approved else None


def _sizes(guard: Guard, shape: Shape) -> Iterator[GuardCheck]:
    least, most = guard.min_audience_rows, guard.max_added_rows
    matters = shape.audience_size or not shape.is_append  # a day without messages is an ordinary day
    size = "is empty" if not shape.audience_size else f"has {shape.audience_size} rows"
    yield GuardCheck(
        name="min_audience_rows",
        figure=shape.audience_size,
        limit=least,
        problem=f"the audience {size}, and the destination holds {shape.held} (min_audience_rows: {least})"
        if matters and shape.audience_size < least
        else None,
    )
    if most is not None:
        yield GuardCheck(
            name="max_added_rows",
            figure=shape.added,
            limit=most,
            problem=f"it would add {shape.added} rows (max_added_rows: {most})"
            if shape.added > most
            else None,
        )


def _shares(guard: Guard, shape: Shape) -> Iterator[GuardCheck]:
    """Shares of what the destination holds; a first run and messages have nothing to compare with."""
    if not shape.held or shape.is_append:
        return
    for verb, rows, share, name in (
        ("remove", shape.removed, guard.max_removed_share, "max_removed_share"),
        ("add", shape.added, guard.max_added_share, "max_added_share"),
        ("change", shape.changed, guard.max_changed_share, "max_changed_share"),
    ):
        limit = max(share * shape.held, guard.floor_rows)
        problem = f"it would {verb} {rows} of {shape.held} rows, {rows / shape.held:.0%} ({name}: {share:g})"
        yield GuardCheck(name=name, figure=rows, limit=limit, problem=problem if rows > limit else None)
