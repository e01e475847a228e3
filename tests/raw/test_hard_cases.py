"""The hard cases exist in the slice, and the page that lists them tells how to find each."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

PAGE = Path(__file__).parents[2] / "docs" / "demo-data.md"


def hard_cases() -> Iterator[tuple[str, str]]:
    """Each query of the page, with the bold words before it."""
    section = PAGE.read_text(encoding="utf-8").split("## Hard cases")[1].split("\n## ")[0]
    name = ""
    for bold, query in re.findall(r"^\*\*(.+?)\*\*|^```sql\n(.+?)^```", section, re.MULTILINE | re.DOTALL):
        name = bold or name
        if query:
            yield name, query


@pytest.mark.parametrize(("name", "query"), list(hard_cases()))
def test_hard_case_is_in_the_slice(small: duckdb.DuckDBPyConnection, name: str, query: str) -> None:
    (rows,) = small.execute(f"select count(*) from ({query})").fetchall()[0]
    assert rows > 0, f"docs/demo-data.md, {name}: the slice has no such row"


def test_page_lists_them_all() -> None:
    assert len(list(hard_cases())) >= 35
