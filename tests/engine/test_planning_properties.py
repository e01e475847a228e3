"""Whatever the audience holds, the plan adds up, is delivered, and leaves nothing to do."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.engine.world import World

KEYS = st.one_of(
    st.none(),
    st.sampled_from(
        [
            "a",
            "b",
            "c",
            "A",
            "a ",
            "İ",
            "ı",
            "ß",
            "é",
            "e\u0301",
            "\u202eb",
            "𝒳",
            "0",
            "",
            "a\x1fb",
            "tab\t",
            "null",
            "'; drop table x; --",
        ]
    ),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=8),
)
EMAILS = st.one_of(
    st.none(),
    st.sampled_from(
        [
            "x@example.com",
            "y@example.com",
            " z@example.com ",
            "no address",
            "",
            "a b@example.com",
            "ü@example.com",
            "=1+1@example.com",
            "@",
            "x@y",
        ]
    ),
    st.builds(lambda name: f"{name}@example.org", st.text("abcdef", min_size=1, max_size=4)),
)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "person_id": KEYS,
            "email": EMAILS,
            "score": st.one_of(st.none(), st.integers(-(2**31), 2**31 - 1)),
            "event_id": st.none(),
            "blocker": st.sampled_from([None, None, None, "consent", "unknown"]),
        }
    ),
    max_size=8,
)
EMAIL = re.compile(r"[^@\s]+@[^@\s]+[.][^@\s]+")


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    """One world for all examples: each begins with whatever the one before it left at the other side."""
    return make_world(guard={"floor_rows": 10_000, "min_audience_rows": 0})


def expected(rows: list[dict[str, Any]]) -> set[str]:
    """Said once more, in Python: who has to be at the other side."""
    copies = Counter(row["person_id"] for row in rows)
    blocked = {row["person_id"] for row in rows if row["blocker"]}
    return {
        str(row["email"]).strip()
        for row in rows
        if row["person_id"] is not None
        and copies[row["person_id"]] == 1
        and row["person_id"] not in blocked
        and not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in row["person_id"])
        and row["email"] is not None
        and EMAIL.fullmatch(row["email"].strip())
    }


@given(ROWS)
@example([{"person_id": "a", "email": "x@example.com", "score": 1, "event_id": None, "blocker": None}] * 2)
@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_any_audience_converges_and_adds_up(world: World, rows: list[dict[str, Any]]) -> None:
    world.rows = [{name: value for name, value in row.items() if name != "blocker"} for row in rows]
    world.eligible = {}
    for row in rows:
        if row["blocker"] != "unknown" and row["person_id"] is not None:
            world.eligible[row["person_id"]] = world.eligible.get(row["person_id"]) or row["blocker"]
    for row in rows:
        if row["blocker"] == "unknown":
            world.eligible.pop(row["person_id"], None)
    for _ in range(3):  # a shared address is handed over by a removal first and an addition after it
        run = world.run()
        assert run.counts.adds_up
        assert run.counts.audience_size == len(rows)
        assert run.counts.planned == run.delivered
    assert run.counts.planned == 0
    # Who was sent before their key became ambiguous stays until somebody repairs it.
    ambiguous = any(n > 1 for n in Counter(row["person_id"] for row in rows).values())
    missing, extra = expected(rows) - world.other.emails, world.other.emails - expected(rows)
    assert not missing
    assert not extra or ambiguous
