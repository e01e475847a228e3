"""Person ids over time: who keeps which id when clusters merge, split, grow and come back."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import pytest

from .conftest import Warehouse

CLUSTER_COLUMNS = (
    "identifier_type varchar, identifier varchar, component varchar, is_attached boolean, "
    "first_seen_at timestamp, linked_count integer, is_oversized boolean"
)
EDGE_COLUMNS = (
    "node_a varchar, node_b varchar, rule varchar, edge_role varchar, probability decimal(5, 4), "
    "identifier_type varchar, identifier varchar, seen_at timestamp"
)
# Contacts by age: `a` is the oldest. Tests name clusters by strings of these letters.
FIRST_SEEN = {letter: datetime(2017, 1, number + 1) for number, letter in enumerate("abcdefgh")}


@dataclass(frozen=True)
class History:
    """Runs of the identity map over clusters that a test makes up, one string of contacts each."""

    warehouse: Warehouse

    def run(
        self,
        day: int,
        *clusters: str,
        frozen: Sequence[str] = (),
        edges: Sequence[tuple[str, str, str]] = (),
        first_seen: Mapping[str, datetime] = FIRST_SEEN,
        shuffle: int | None = None,
        arguments: Sequence[str] = (),
    ) -> None:
        rows = [
            ("contact", contact, cluster, False, first_seen[contact], len(cluster), cluster in frozen)
            for cluster in (*clusters, *frozen)
            for contact in cluster
        ]
        if shuffle is not None:
            random.Random(shuffle).shuffle(rows)
        seen_at = datetime(2017, 6, 1)
        nodes = [
            (f"contact:{one}", f"contact:{other}", rule, "link", 1, "email", "e", seen_at)
            for one, other, rule in edges
        ]
        self.warehouse.write("staging.run_clock", "as_of timestamp", [(datetime(2017, 9, day),)])
        self.warehouse.write("identity.int_identity__clusters", CLUSTER_COLUMNS, rows)
        self.warehouse.write("identity.int_identity__guarded_edges", EDGE_COLUMNS, nodes)
        self.warehouse.run("identity_map", "identity_events", arguments=arguments)

    def persons(self) -> dict[str, str]:
        """The person of every contact, now."""
        return dict(
            self.warehouse.query("select identifier, person_id from identity.identity_map where is_current")
        )

    def events(self, event_type: str) -> list[tuple[str, str | None, str | None]]:
        return self.warehouse.query(
            "select person_id, other_person_id, rule from identity.identity_events "
            f"where event_type = '{event_type}' order by changed_at, person_id"
        )


@pytest.fixture
def history(warehouse: Warehouse) -> Iterator[History]:
    warehouse.query(
        "drop table if exists identity.identity_map; drop table if exists identity.identity_events"
    )
    yield History(warehouse)
    overlaps = warehouse.query(
        "select identifier from identity.identity_map where is_current group by all having count(*) > 1"
    )
    assert overlaps == [], "an identifier belongs to one person at a time"
    wrong_ends = warehouse.query(
        "select identifier from identity.identity_map where is_current <> (valid_to is null) or valid_to < valid_from"
    )
    assert wrong_ends == [], "what is current is open, what is closed has ended"


def test_second_run_changes_nothing(history: History) -> None:
    history.run(1, "ab", "c")
    before = history.warehouse.query("select * from identity.identity_map order by all")
    history.run(2, "ab", "c")
    assert history.warehouse.query("select * from identity.identity_map order by all") == before
    assert len(history.events("created")) == 2


def test_full_refresh_keeps_ids_and_history(history: History) -> None:
    history.run(1, "a", "b")
    history.run(2, "ab")
    before = history.warehouse.query("select * from identity.identity_map order by all")
    history.run(3, "ab", arguments=["--full-refresh"])
    assert history.warehouse.query("select * from identity.identity_map order by all") == before
    assert len(history.events("merged")) == 1


def test_order_of_the_input_does_not_matter(history: History) -> None:
    minted = []
    for seed in range(3):
        history.warehouse.query("drop table if exists identity.identity_map")
        history.run(1, "ab", "cd", "efg", shuffle=seed)
        minted.append(history.persons())
    assert minted[0] == minted[1] == minted[2]


def test_merge_keeps_the_person_of_the_oldest_identifier_and_says_why(history: History) -> None:
    history.run(1, "ac", "bd")
    before = history.persons()
    history.run(2, "abcd", edges=[("c", "d", "same_phone_and_name"), ("a", "c", "same_email")])
    assert set(history.persons().values()) == {before["a"]}
    assert history.events("merged") == [(before["a"], before["b"], "same_phone_and_name")]


def test_merge_of_merged_persons_cascades(history: History) -> None:
    history.run(1, "a", "b", "c")
    first = history.persons()
    history.run(2, "a", "bc")
    history.run(3, "abc")
    assert set(history.persons().values()) == {first["a"]}
    assert [event[:2] for event in history.events("merged")] == [
        (first["b"], first["c"]),
        (first["a"], first["b"]),
    ]


def test_split_leaves_the_id_with_the_oldest_and_mints_one_never_used(history: History) -> None:
    history.run(1, "a", "b")
    apart = history.persons()
    history.run(2, "ab")
    history.run(3, "a", "b")
    after = history.persons()
    assert after["a"] == apart["a"]
    assert after["b"] not in apart.values(), "the id that b had before the merge is retired for good"
    assert history.events("split") == [(after["b"], after["a"], None)]


def test_split_that_joins_another_person_takes_that_persons_id(history: History) -> None:
    history.run(1, "ab", "cd")
    before = history.persons()
    history.run(2, "a", "bcd")
    assert history.persons() == {"a": before["a"], "b": before["c"], "c": before["c"], "d": before["c"]}
    assert history.events("merged") == history.events("split") == []


def test_earlier_identifier_that_arrives_late_does_not_rename(history: History) -> None:
    history.run(1, "bc")
    before = history.persons()
    history.run(2, "abc")
    assert set(history.persons().values()) == set(before.values())


def test_source_that_was_away_for_a_day_brings_its_people_back_as_they_were(history: History) -> None:
    history.run(1, "ab", "c")
    before = history.persons()
    history.run(2, "c")
    assert set(history.persons()) == {"c"}
    history.run(3, "ab", "c")
    assert history.persons() == before
    assert len(history.events("created")) == 2


def test_returning_identifier_does_not_take_the_id_from_those_who_stayed(history: History) -> None:
    history.run(1, "ab")
    before = history.persons()
    history.run(2, "b")
    history.run(3, "a", "b")
    after = history.persons()
    assert after["b"] == before["b"]
    assert after["a"] != before["a"]


def test_id_minted_from_the_same_identifier_twice_differs(history: History) -> None:
    """a is minted, leaves its person to b, and must then found a second one."""
    history.run(1, "ab")
    history.run(2, "b")
    history.run(3, "a", "b")
    history.run(4, "ab")
    history.run(5, "b")
    history.run(6, "a", "b")
    ids = history.warehouse.query(
        "select distinct person_id from identity.identity_map where identifier = 'a'"
    )
    minted = [person for person, _, _ in history.events("created")]
    assert len(minted) == len(set(minted))
    assert len(ids) == len(minted)


def test_oversized_cluster_changes_nobody(history: History) -> None:
    history.run(1, "ab", "c")
    before = history.persons()
    history.run(2, frozen=["abcd"])
    assert history.persons() == before
    history.run(3, "ab", "c", "d")
    assert {contact: history.persons()[contact] for contact in "abc"} == before


def test_two_runs_at_one_moment_keep_the_rules(history: History) -> None:
    history.run(1, "a", "b")
    apart = history.persons()
    history.run(1, "ab")
    history.run(1, "ab")
    assert history.events("merged") == [(apart["a"], apart["b"], None)]


def test_map_can_be_read_as_of_a_day(history: History) -> None:
    history.run(1, "a", "b")
    apart = history.persons()
    history.run(5, "ab")
    then = history.warehouse.query(
        "select identifier, person_id from identity.identity_map "
        "where valid_from <= timestamp '2017-09-03' and coalesce(valid_to > timestamp '2017-09-03', true)"
    )
    assert dict(then) == apart
