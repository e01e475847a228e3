"""How much a run may change before a person has to look. Pure arithmetic."""

from __future__ import annotations

from dataclasses import dataclass

from activations.config import Guard


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The outline of a plan. `removed` leaves out the people who asked to be removed: they never count."""

    audience_size: int
    held: int
    added: int
    changed: int
    removed: int
    is_append: bool


@dataclass(frozen=True, slots=True)
class Held:
    """Why a plan waits for a person. `reason` is a sentence with the numbers and the guard's name."""

    reason: str


def held_because(guard: Guard, shape: Shape, *, approved: bool) -> Held | None:
    """The first guard that speaks, or None. An approval of exactly this plan silences them all."""
    if approved:
        return None
    return _too_small(guard, shape) or _too_much(guard, shape)


def _too_small(guard: Guard, shape: Shape) -> Held | None:
    if shape.audience_size < guard.min_audience_rows:
        size = "is empty" if not shape.audience_size else f"has {shape.audience_size} rows"
        return Held(
            f"the audience {size}, and the destination holds {shape.held} (min_audience_rows: {guard.min_audience_rows})"
        )
    if guard.max_added_rows is not None and shape.added > guard.max_added_rows:
        return Held(f"it would add {shape.added} rows (max_added_rows: {guard.max_added_rows})")
    return None


def _too_much(guard: Guard, shape: Shape) -> Held | None:
    if not shape.held or shape.is_append:
        return None
    limits = (
        ("remove", shape.removed, guard.max_removed_share, "max_removed_share"),
        ("add", shape.added, guard.max_added_share, "max_added_share"),
        ("change", shape.changed, guard.max_changed_share, "max_changed_share"),
    )
    for verb, rows, share, name in limits:
        if rows > max(share * shape.held, guard.floor_rows):
            return Held(
                f"it would {verb} {rows} of {shape.held} rows, {rows / shape.held:.0%} ({name}: {share:g})"
            )
    return None
