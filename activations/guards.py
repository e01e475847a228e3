"""How much a run may change before a person has to look. Pure arithmetic."""

from __future__ import annotations

from dataclasses import dataclass

from activations.config import Guard


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The outline of a plan. `removed` leaves out the people who asked to be removed: they never count."""

    audience_size: int
    acknowledged: int
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
    if shape.acknowledged and not shape.is_append and shape.audience_size < guard.min_audience_rows:
        return Held(
            f"the audience has {shape.audience_size} rows while the destination holds {shape.acknowledged} (min_audience_rows: {guard.min_audience_rows})"
        )
    if (
        not shape.acknowledged
        and guard.max_first_run_rows is not None
        and shape.added > guard.max_first_run_rows
    ):
        return Held(
            f"the first run would add {shape.added} rows (max_first_run_rows: {guard.max_first_run_rows})"
        )
    return None


def _too_much(guard: Guard, shape: Shape) -> Held | None:
    if not shape.acknowledged or shape.is_append:
        return None
    limits = (
        ("remove", shape.removed, guard.max_removed_share, "max_removed_share"),
        ("add", shape.added, guard.max_added_share, "max_added_share"),
        ("change", shape.changed, guard.max_changed_share, "max_changed_share"),
    )
    for verb, rows, share, name in limits:
        if rows > max(share * shape.acknowledged, guard.floor_rows):
            return Held(
                f"it would {verb} {rows} of {shape.acknowledged} rows, {rows / shape.acknowledged:.0%} ({name}: {share:g})"
            )
    return None
