"""The closure in SQL against scipy's, on the shapes that break closures: chains, stars, blobs, loners."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable
from itertools import pairwise

import numpy
import pytest
from scipy.sparse import coo_matrix  # type: ignore[import-untyped]
from scipy.sparse.csgraph import connected_components  # type: ignore[import-untyped]

from .conftest import Warehouse

Edge = tuple[int, int]


def chain(nodes: list[int]) -> list[Edge]:
    return list(pairwise(nodes))


def star(nodes: list[int]) -> list[Edge]:
    return [(nodes[0], leaf) for leaf in nodes[1:]]


def scattered(nodes: list[int], rng: random.Random, edge_count: int) -> list[Edge]:
    return [(rng.choice(nodes), rng.choice(nodes)) for _ in range(edge_count)]


def shapes(seed: int) -> tuple[int, list[Edge]]:
    """Ten thousand nodes under shuffled names, so that no shape profits from the order of its labels."""
    rng = random.Random(seed)
    names = list(range(10_000))
    rng.shuffle(names)
    edges = chain(names[:1000]) + star(names[1000:2000]) + star(sorted(names[2000:3000], reverse=True))
    edges += scattered(names[3000:4000], rng, 5000) + scattered(names[4000:9000], rng, 2500)
    rng.shuffle(edges)
    return len(names), [edge if rng.random() < 0.5 else (edge[1], edge[0]) for edge in edges]


def partition(labels: Iterable[tuple[str, str]]) -> set[frozenset[str]]:
    groups: dict[str, set[str]] = defaultdict(set)
    for node, label in labels:
        groups[label].add(node)
    return {frozenset(group) for group in groups.values()}


def expected_partition(node_count: int, edges: list[Edge]) -> set[frozenset[str]]:
    rows, columns = numpy.array(edges).T
    graph = coo_matrix((numpy.ones(len(edges)), (rows, columns)), shape=(node_count, node_count))
    _, labels = connected_components(graph, directed=False)
    return partition((f"contact:{node}", str(label)) for node, label in enumerate(labels))


def write_graph(warehouse: Warehouse, node_count: int, edges: list[Edge]) -> None:
    warehouse.query(
        "create schema if not exists identity; create or replace table identity.int_identity__contacts as "
        f"select cast(node as varchar) as contact_key from range({node_count}) as nodes(node)"
    )
    warehouse.query(
        "create or replace table identity.int_identity__guarded_edges as "
        "select 'contact:' || edge[1] as node_a, 'contact:' || edge[2] as node_b, 'same_email' as rule, "
        f"'link' as edge_role, 'household' as identifier_type from (select unnest({[list(e) for e in edges]}) as edge)"
    )


@pytest.mark.parametrize("seed", [1, 2])
def test_components_are_the_ones_scipy_finds(warehouse: Warehouse, seed: int) -> None:
    node_count, edges = shapes(seed)
    write_graph(warehouse, node_count, edges)
    warehouse.run("int_identity__components")
    labels = warehouse.query("select node, component from identity.int_identity__components")
    assert len(labels) == node_count
    assert partition(labels) == expected_partition(node_count, edges)
    assert all(component <= node for node, component in labels), "a component is named by its smallest node"


def test_work_tables_do_not_stay_behind(warehouse: Warehouse) -> None:
    write_graph(warehouse, 4, [(0, 1), (1, 2)])
    warehouse.run("int_identity__components")
    leftovers = warehouse.query(
        "select table_name from duckdb_tables() where contains(table_name, 'components__')"
    )
    assert leftovers == []


def test_closure_that_does_not_converge_fails_instead_of_cutting(warehouse: Warehouse) -> None:
    node_count, edges = shapes(seed=1)
    write_graph(warehouse, node_count, edges)
    failure = warehouse.try_run(
        "int_identity__components", arguments=["--vars", "{identity_max_contraction_rounds: 1}"]
    )
    assert failure is not None
    assert "edges are left after 1 rounds" in failure
    assert "identity_max_contraction_rounds" in failure
