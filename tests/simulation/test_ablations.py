"""A simulation is worth what it catches: take a protective measure out of the engine, and it has to notice."""

from __future__ import annotations

import os

import pytest

from tests.simulation.ablations import ABLATIONS, Ablation, caught_by
from tests.simulation.crash_points import SCENARIOS, play, points_of

FAST = 20
"""Ablations that take more seeds than this run with `make simulate`."""
ALL = bool(os.environ.get("ALL_ABLATIONS"))


@pytest.mark.parametrize(
    "ablation", [a for a in ABLATIONS if a.within and (ALL or a.within <= FAST)], ids=lambda a: a.name
)
def test_the_simulation_notices(ablation: Ablation) -> None:
    assert ablation.within is not None
    assert caught_by(ablation, range(ablation.within)), f"{ablation.name}: not noticed"


def test_pruning_before_the_merge_is_noticed_by_the_crash_points() -> None:
    """Seeds seldom die between the two; every commit does."""
    (ablation,) = (a for a in ABLATIONS if a.name == "prune after the merge")
    first_sync = SCENARIOS[0]
    with ablation.off():
        found = {i for point in points_of(first_sync) for i in play(first_sync, point).invariants}
    assert found & ablation.by
