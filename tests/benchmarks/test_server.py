"""The figures are only as good as the counting: every row once, whatever stands in it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from benchmarks.process import counting_server
from benchmarks.server import Server


def body(*rows: tuple[str, str, dict[str, Any]]) -> bytes:
    changes = [{"key": key, "operation": operation, "fields": fields} for key, operation, fields in rows]
    return json.dumps({"changes": changes}, separators=(",", ":")).encode()


def counts(server: Server) -> dict[str, int]:
    answer, _ = server.answer(b"/counts", b"")
    return dict(json.loads(answer))


def test_rows_are_counted_by_operation_and_answered_one_by_one() -> None:
    server = Server(0.02)
    sent = body(("k1", "added", {}), ("k2", "changed", {}), ("k3", "removed", {}))
    answer, held_back = server.answer(b"/webhook", sent)
    assert held_back == 0.02
    assert [(r["key"], r["status"]) for r in json.loads(answer)["results"]] == [
        ("k1", "ok"),
        ("k2", "ok"),
        ("k3", "ok"),
    ]
    found = counts(server)
    assert {name: found[name] for name in ("added", "changed", "removed", "rows", "requests")} == {
        "added": 1,
        "changed": 1,
        "removed": 1,
        "rows": 3,
        "requests": 1,
    }
    assert found["body_bytes"] == len(sent)


@pytest.mark.parametrize("value", ['"key":"k9"', '"operation":"added"', "\\", "\u202e", '\\"key\\":\\"x'])
def test_what_stands_in_a_value_is_not_counted(value: str) -> None:
    server = Server(0)
    server.answer(b"/webhook", body(("k1", "added", {"note": value})))
    found = counts(server)
    assert (found["added"], found["rows"], found["distinct_keys"]) == (1, 1, 1)


def test_a_row_that_comes_twice_is_noticed() -> None:
    server = Server(0)
    for _ in range(2):
        server.answer(b"/webhook", body(("k1", "added", {})))
    found = counts(server)
    assert (found["rows"], found["distinct_keys"]) == (2, 1)


def test_counting_starts_again() -> None:
    server = Server(0)
    server.answer(b"/rows", b'[{"person_id":1},{"person_id":2}]')
    assert counts(server)["rows"] == 2
    assert counts(server)["rows"] == 0


def test_it_answers_over_the_network() -> None:
    with counting_server(0.0) as server:
        assert server.counts()["requests"] == 0
